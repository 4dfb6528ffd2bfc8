"""Behaviour of app.litter."""

import pytest

from app.contract import digest_files
from app.litter import is_litter


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "._cat.jpg", "Thumbs.db", "THUMBS.DB", "desktop.ini", "__MACOSX", "@eaDir", "lost+found", ".git"],
)
def test_what_programs_leave_is_litter(name):
    """On Windows, macOS, network storage and Linux."""
    assert is_litter(name)


@pytest.mark.parametrize("name", ["cat.jpg", "Thumbs.jpg", "desktop", "MACOSX", "samples", "1", "db"])
def test_a_persons_own_files_are_not(name):
    """Not even those with similar names."""
    assert not is_litter(name)


def test_litter_is_no_part_of_a_version(tmp_path):
    """A file browser that looked into a version's folder does not spoil it."""
    (tmp_path / "saved_model.pb").write_bytes(b"model")
    (tmp_path / "__MACOSX").mkdir()
    for name in (".DS_Store", "Thumbs.db", "__MACOSX/saved_model.pb"):
        (tmp_path / name).touch()
    assert list(digest_files(tmp_path)) == ["saved_model.pb"]
