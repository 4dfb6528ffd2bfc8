"""The map in README.md names every package; docs/architecture.md names modules and rows that exist."""

import re
from pathlib import Path

import pytest

from tests.app.test_architecture import ROWS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def read_tree() -> dict[str, list[str]]:
    """Read the folders below each folder of the list of files."""
    tree: dict[str, list[str]] = {}
    for line in re.search(r"^## Files\n\n```\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)[1].splitlines():
        name = line.split()[0]
        if line.startswith(" "):
            tree[list(tree)[-1]].append(name)
        else:
            tree[name] = []
    return tree


@pytest.mark.parametrize("folder", ["app", "training", "benchmarks", "deploy", "tests"])
def test_every_package_has_its_line(folder):
    """One each, and no other lines."""
    found = [f"{path.name}/" for path in (ROOT / folder).iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert sorted(read_tree()[f"{folder}/"]) == sorted(found)


def test_every_folder_at_the_top_has_its_line():
    """Except hidden and generated ones."""
    written = [path.name for path in ROOT.iterdir() if path.is_dir() and (path / "__init__.py").exists()]
    assert {f"{name}/" for name in [*written, "models", "deploy", "docs", "tests"]} <= set(read_tree())
    for name in read_tree():
        assert (ROOT / name).is_dir(), name


def test_the_documented_rows_of_imports_are_the_tested_ones():
    """Row by row."""
    rows = re.findall(r"^\| \d+ \| (.+) \|$", ARCHITECTURE, re.MULTILINE)
    assert [set(re.findall(r"`(\w+)`", row)) for row in rows] == [set(row) for row in ROWS]


@pytest.mark.parametrize("folder", ["app", "training"])
def test_documented_names_are_defined_in_their_module(folder):
    """Each function or class that a document places in a module."""
    named = re.findall(rf"`(?:\w+\.)?(\w+)` in \[`\w[\w./]*`\]\(\.\./({folder}/[\w/]+\.py)\)", ARCHITECTURE)
    assert named
    for name, module in named:
        assert re.search(rf"\b{name}\b", (ROOT / module).read_text(encoding="utf-8")), (name, module)
