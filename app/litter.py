"""Recognizes files and folders that operating systems and programs leave in users' folders."""

_NAMES = frozenset(
    {
        "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "system volume information",
        "__macosx", "icon\r", "network trash folder", "temporary items",
        "@eadir", "#recycle", "@recycle", "lost+found", "picasa.ini", "zbthumbnail.info",
    }
)  # fmt: skip
"""From Windows, macOS, network storage, Linux and photo programs, in lower case."""


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is hidden (`.DS_Store`, `._photo.jpg`) or was left by a program."""
    return is_hidden(name) or name.lower() in _NAMES


def is_hidden(name: str) -> bool:
    """Whether `name` begins with a dot."""
    return name.startswith(".")
