"""Behaviour of training.numbering."""

import pytest

from training.failures import VersionError
from training.numbering import find_newest, next_candidate, next_version, read_metadata


def test_the_next_version_follows_the_highest(tmp_path):
    """A candidate gets the next free number, because it may become that version."""
    assert next_version(tmp_path / "none") == 1
    for name in ("2", "10", "samples", ".writing-x"):
        (tmp_path / name).mkdir()
    assert next_version(tmp_path) == next_candidate(tmp_path) == 11
    (tmp_path / ".candidate-11").mkdir()
    assert (next_version(tmp_path), next_candidate(tmp_path)) == (11, 12)


def test_the_newest_version_is_the_highest_number(tmp_path):
    """Not the last by name, and not a candidate."""
    assert find_newest(tmp_path / "none") is None
    for name in ("2", "10", ".candidate-12", "samples"):
        (tmp_path / name).mkdir()
    assert find_newest(tmp_path) == tmp_path / "10"


def test_a_folder_without_metadata_is_refused(tmp_path):
    """With its path."""
    with pytest.raises(VersionError, match=f"{tmp_path} is not a version"):
        read_metadata(tmp_path)
