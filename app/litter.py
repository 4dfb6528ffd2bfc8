"""Files and folders that operating systems and their programs leave among a person's own."""

_NAMES = frozenset(
    {
        "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "system volume information",
        "__macosx", "icon\r", "network trash folder", "temporary items",
        "@eadir", "#recycle", "@recycle", "lost+found", "picasa.ini", "zbthumbnail.info",
    }
)  # fmt: skip
"""As Windows, macOS, network storage, Linux and photo programs call them, in lower case."""


def is_litter(name: str) -> bool:
    """Whether `name`, without its folder, is hidden (`.DS_Store`, `._photo.jpg`) or one that a program leaves."""
    return is_hidden(name) or name.lower() in _NAMES


def is_hidden(name: str) -> bool:
    """Whether `name` begins with a dot."""
    return name.startswith(".")
