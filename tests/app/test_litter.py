"""Behaviour of app.litter."""

import pytest

from app.contract import digest_files
from app.litter import is_litter


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "._cat.jpg", "Thumbs.db", "THUMBS.DB", "desktop.ini", "__MACOSX", "@eaDir", "lost+found", ".git"],
)
def test_files_of_operating_systems_are_litter(name):
    """Those of Windows, macOS, Linux and network storage."""
    assert is_litter(name)


@pytest.mark.parametrize("name", ["cat.jpg", "Thumbs.jpg", "desktop", "MACOSX", "samples", "1", "db"])
def test_files_with_similar_names_are_not_litter(name):
    """They belong to the user."""
    assert not is_litter(name)


def test_litter_in_a_version_is_ignored(tmp_path):
    """Opening a version's folder in a file browser does not invalidate it."""
    (tmp_path / "saved_model.pb").write_bytes(b"model")
    (tmp_path / "__MACOSX").mkdir()
    for name in (".DS_Store", "Thumbs.db", "__MACOSX/saved_model.pb"):
        (tmp_path / name).touch()
    assert list(digest_files(tmp_path)) == ["saved_model.pb"]
