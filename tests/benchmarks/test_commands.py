"""The list of commands in benchmarks/__init__.py is complete."""

import re

import benchmarks
from benchmarks.pictures import ROOT

FOLDER = ROOT / "benchmarks"
LISTED = re.findall(r"^- (\w+): (.+?), ", benchmarks.__doc__, re.MULTILINE)


def test_every_command_is_listed_and_nothing_else():
    """A command is a module that does something when it runs."""
    commands = [path.stem for path in FOLDER.glob("*.py") if "\nif __name__ ==" in path.read_text(encoding="utf-8")]
    assert [name for name, _ in LISTED] == sorted(commands)


def test_every_file_of_results_is_written_by_a_command():
    """And every listed file exists."""
    written = {file for _, files in LISTED for file in files.split(" and ") if "/" not in file}
    assert written == {path.name for path in (FOLDER / "results").iterdir()}


def test_the_documentation_lists_the_same_commands():
    """In its table of commands, each with the results that it writes."""
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `python -m benchmarks\.(\w+)`.*\| \[(\S+)\]\(\S+\) \|$", text, re.MULTILINE)
    assert sorted(rows) == [(name, files.split(" and ")[0].removeprefix("docs/")) for name, files in LISTED]
