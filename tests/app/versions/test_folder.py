"""Behaviour of app.versions.folder."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from app.errors import RefusedVersionError
from app.versions.folder import find_versions


def add(folder: Path, number: int) -> Path:
    version = folder / str(number)
    version.mkdir(parents=True)
    (version / "metadata.json").write_text("{}")
    return version


def find(folder: Path) -> tuple[list[int], list[str]]:
    """Return the numbers of the versions, and the warnings."""
    warnings: list[str] = []
    return [version.number for version in find_versions(folder, warnings.append)], warnings


@pytest.fixture
def fail_to_read(monkeypatch):
    """Make listing a folder fail, as it does for users other than root."""
    failing: dict[Path, int] = {}
    scandir, listdir = os.scandir, os.listdir

    def make(function):
        def read(path="."):
            if code := failing.get(Path(path)):
                raise OSError(code, os.strerror(code), str(path))
            return function(path)

        return read

    monkeypatch.setattr(os, "scandir", make(scandir))
    monkeypatch.setattr(os, "listdir", make(listdir))
    return failing.__setitem__


def test_the_setting_may_name_a_model_folder_or_a_version(tmp_path, monkeypatch):
    """A folder of models, of versions, or one version, also as `.` or a link: the real folder has its number."""
    version = add(tmp_path / "tiny", 3)
    assert find(tmp_path) == find(tmp_path / "tiny") == find(version) == ([3], [])
    (tmp_path / "current").symlink_to(version)
    assert find_versions(tmp_path / "current")[0].folder == version
    monkeypatch.chdir(version)
    assert find(Path()) == ([3], [])


def test_a_version_whose_folder_has_no_number_is_refused_by_name(tmp_path):
    """Instead of being searched for versions."""
    add(tmp_path, 3).rename(tmp_path / "best")
    with pytest.raises(RefusedVersionError, match=r"best contains metadata.json, but its name is not a version number"):
        find_versions(tmp_path / "best")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
@pytest.mark.parametrize("name", ["backup", "lost+found"])
def test_an_unreadable_folder_beside_a_model_is_ignored(tmp_path, fail_to_read, code, name):
    """Such as `lost+found` at a volume's root, without a warning."""
    add(tmp_path / "tiny", 1)
    (tmp_path / name).mkdir()
    fail_to_read(tmp_path / name, code)
    versions, warnings = find(tmp_path)
    assert versions == [1]
    assert warnings == ([f"{tmp_path}/backup is skipped: {os.strerror(code)}"] if name == "backup" else [])


def test_an_unreadable_version_is_found(tmp_path, fail_to_read):
    """Loading it gives the reason, and tries again. Another version can serve meanwhile."""
    add(tmp_path / "tiny", 1)
    fail_to_read(add(tmp_path / "tiny", 2), errno.EACCES)
    assert find(tmp_path) == ([2, 1], [])


def test_metadata_beside_versions_are_ignored(tmp_path):
    """Other programs have files of that name."""
    add(tmp_path, 1)
    (tmp_path / "metadata.json").write_text("{}")
    assert find(tmp_path) == ([1], [])


def test_an_unreadable_model_folder_is_an_error(tmp_path, fail_to_read):
    """It may contain a version."""
    add(tmp_path, 1)
    fail_to_read(tmp_path, errno.EACCES)
    with pytest.raises(PermissionError):
        find_versions(tmp_path)


@pytest.mark.parametrize("level", ["model", "version", "file"])
def test_a_folder_deleted_while_listing_is_skipped(tmp_path, monkeypatch, level):
    """For example by a rollback, or a copy that removes its temporary files."""
    add(tmp_path / "tiny", 1)
    gone = {"model": add(tmp_path / "other", 9).parent, "version": add(tmp_path / "tiny", 2)}
    gone["file"] = tmp_path / "tiny" / "1" / "metadata.json"
    if level != "model":
        shutil.rmtree(gone["model"])
    lstat, is_dir = Path.lstat, Path.is_dir

    def delete_then(function):
        def call(path):
            if path == gone[level]:
                shutil.rmtree(path) if is_dir(path) else path.unlink(missing_ok=True)
            return function(path)

        return call

    monkeypatch.setattr(Path, "lstat", delete_then(lstat))
    monkeypatch.setattr(Path, "is_dir", delete_then(is_dir))
    assert find(tmp_path) == ([1] if level == "version" else [2, 1], [])


@pytest.mark.parametrize("name", ["lost+found", "@eaDir", "__MACOSX", ".snapshot", ".staging", "$RECYCLE.BIN"])
def test_folders_of_operating_systems_are_not_models(tmp_path, name):
    """Even if they contain copies of versions, like __MACOSX in an unpacked archive."""
    add(tmp_path / "tiny", 1)
    add(tmp_path / name, 2)
    assert find(tmp_path) == ([1], [])


def test_only_folders_named_by_a_number_are_versions(tmp_path):
    """Unfinished versions, candidates and other files are skipped without a warning."""
    add(tmp_path / "tiny", 1)
    for name in (".writing-2", ".candidate-3", "0", "01", "latest", "2.bak", "samples", "@eaDir"):
        add(tmp_path / "tiny", 5).rename(tmp_path / "tiny" / name)
    for name in (".DS_Store", "README.md", "Thumbs.db"):
        (tmp_path / "tiny" / name).write_text("")
        (tmp_path / name).write_text("")
    assert find(tmp_path) == ([1], [])


def test_a_file_or_broken_link_named_like_a_version_gets_a_warning(tmp_path):
    """It was probably meant as a version."""
    add(tmp_path / "tiny", 1)
    (tmp_path / "tiny" / "7").write_text("")
    (tmp_path / "tiny" / "8").symlink_to("nowhere")
    versions, warnings = find(tmp_path)
    assert versions == [1]
    assert sorted(warnings) == [f"{tmp_path}/tiny/{n} is skipped: not a folder" for n in (7, 8)]


def test_a_changed_file_makes_a_different_version(tmp_path):
    """So a refused version is tried again."""
    version = add(tmp_path, 1)
    before = find_versions(tmp_path)
    assert find_versions(tmp_path) == before
    (version / "metadata.json").write_text("{...}")
    assert find_versions(tmp_path) != before
