"""The file tree in README.md names what there is."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def read_tree() -> dict[str, list[str]]:
    """Read what stands under each entry of the tree, by its first word."""
    tree: dict[str, list[str]] = {}
    for line in re.search(r"^## Files\n\n```\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)[1].splitlines():
        name = line.split()[0]
        if line.startswith(" "):
            tree[list(tree)[-1]].append(name)
        else:
            tree[name] = []
    return tree


def is_shown(path: Path) -> bool:
    """Leave out what is made, not written, and what says nothing."""
    return not path.name.startswith("__py") and path.name != "__init__.py"


@pytest.mark.parametrize("folder", ["app", "training"])
def test_every_module_has_its_line(folder):
    """Each once, with whatever else lies beside the modules."""
    found = [path.name + "/" * path.is_dir() for path in (ROOT / folder).iterdir() if is_shown(path)]
    assert sorted(read_tree()[f"{folder}/"]) == sorted(found)


@pytest.mark.parametrize("folder", ["benchmarks", "deploy", "tests"])
def test_every_subfolder_has_its_line(folder):
    """Their files are many and speak for themselves."""
    found = [f"{path.name}/" for path in (ROOT / folder).iterdir() if path.is_dir() and is_shown(path)]
    assert sorted(read_tree()[f"{folder}/"]) == sorted(found)


def test_what_is_named_at_the_top_is_there():
    """Files and folders."""
    for name in read_tree():
        assert (ROOT / name.rstrip(",")).exists(), name
