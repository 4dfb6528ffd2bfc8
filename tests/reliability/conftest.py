"""Shared by the reliability tests: real server processes, and the table of results."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.app.conftest import exported, start  # noqa: F401 -- fixtures
from tests.app.process import ROOT

_TABLE = pytest.StashKey[dict[str, list[int]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TABLE] = {}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table of docs/reliability.md."""
    if rows := config.stash[_TABLE]:
        terminalreporter.section("attempts and failures")
        terminalreporter.write_line("| what was tried | how often | lost or wrong |")
        terminalreporter.write_line("|---|---|---|")
        for what, (count, lost) in rows.items():
            terminalreporter.write_line(f"| {what} | {count:,} | {lost:,} |")


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str, int, int], None]:
    """Add a row: what was tried, how often, and how often it was lost or wrong. Rows with the same `what` add up."""

    def tell(what: str, count: int, lost: int) -> None:
        row = request.config.stash[_TABLE].setdefault(what, [0, 0])
        row[0] += count
        row[1] += lost

    return tell


@pytest.fixture
def models(exported: Path, tmp_path: Path) -> Path:  # noqa: F811
    """A model folder with the tiny version, for tests that change it."""
    shutil.copytree(exported, tmp_path / "models" / "tiny" / "1")
    return tmp_path / "models"


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """A model folder with the newest shipped version as version 1, for tests that change it."""
    versions = [path for path in (ROOT / "models").glob("*/*") if path.name.isdecimal()]
    if not versions:
        pytest.skip("no version is shipped")
    newest = max(versions, key=lambda path: int(path.name))
    shutil.copytree(newest, tmp_path / "shipped" / newest.parent.name / newest.name)
    return tmp_path / "shipped"
