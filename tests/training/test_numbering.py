import pytest

from training.failures import VersionError
from training.numbering import find_newest, next_candidate, next_version, read_metadata


def test_versions_are_numbered_on(tmp_path):
    """After the highest; a candidate has the next free number, since it may become that version."""
    assert next_version(tmp_path / "none") == 1
    for name in ("2", "10", "samples", ".writing-x"):
        (tmp_path / name).mkdir()
    assert next_version(tmp_path) == next_candidate(tmp_path) == 11
    (tmp_path / ".candidate-11").mkdir()
    assert (next_version(tmp_path), next_candidate(tmp_path)) == (11, 12)


def test_the_newest_version_is_the_highest_number(tmp_path):
    """Not the last by name; a candidate is none yet."""
    assert find_newest(tmp_path / "none") is None
    for name in ("2", "10", ".candidate-12", "samples"):
        (tmp_path / name).mkdir()
    assert find_newest(tmp_path) == tmp_path / "10"


def test_a_folder_without_metadata_is_refused(tmp_path):
    """By its name."""
    with pytest.raises(VersionError, match=f"{tmp_path} is not a version"):
        read_metadata(tmp_path)
