"""Finds the versions in a folder, and ignores other files."""

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from app.contract import METADATA_FILE
from app.errors import RefusedVersionError
from app.litter import is_litter

_VERSION_NAME = re.compile(r"[1-9][0-9]{0,17}")

Warn = Callable[[str], None]


class Version(NamedTuple):
    """A version folder and its files. After a change of a file it is another `Version`, so it is loaded again."""

    number: int
    folder: Path
    files: tuple[tuple[str, int, int], ...]  # path, bytes, modification time in ns


def find_versions(folder: Path, warn: Warn = lambda _: None) -> list[Version]:
    """Return the versions in `folder`, newest first.

    Skips other files and folders, and versions that are deleted meanwhile. Includes unreadable versions: loading them
    reports the reason.

    Args:
        folder: contains `<name>/<version>/` of one model, contains the `<version>` folders, or is a version folder.
        warn: called with a message for each skipped entry that looks like a version or a model.

    Raises:
        RefusedVersionError: there are no versions, or versions of several models.
        OSError: the folder can't be read.
    """
    if not folder.is_dir():
        raise RefusedVersionError(f"{folder} is not a folder; set APP_MODEL_DIR to the folder of versions")
    versions = _list_versions(folder, warn)
    if not versions and (folder / METADATA_FILE).exists():
        versions = [_open_version(folder)]
    if not versions:
        found = {path.name: _look_in(path, warn) for path in folder.iterdir() if not is_litter(path.name)}
        models = sorted(name for name, its_versions in found.items() if its_versions)
        if len(models) > 1:
            raise RefusedVersionError(
                f"{folder} contains several models ({', '.join(models)}); set APP_MODEL_DIR to one of them"
            )
        versions = [version for its_versions in found.values() for version in its_versions]
    if not versions:
        raise RefusedVersionError(f"{folder} contains no version; expected {folder}/<name>/<version>/")
    return sorted(versions, reverse=True)


def _open_version(folder: Path) -> Version:
    real = folder.resolve()  # the number is in its name, even if `folder` is `.` or a link
    if not _VERSION_NAME.fullmatch(real.name):
        raise RefusedVersionError(f"{real} contains {METADATA_FILE}, but its name is not a version number")
    return Version(int(real.name), real, _list_files(real))


def _look_in(folder: Path, warn: Warn) -> list[Version]:
    """Return the versions in a possible model folder; an unreadable folder must not hide the others."""
    try:
        return _list_versions(folder, warn) if folder.is_dir() else []
    except FileNotFoundError:  # deleted since it was listed
        return []
    except OSError as error:
        warn(f"{folder} is skipped: {error.strerror}")
        return []


def _list_versions(folder: Path, warn: Warn) -> list[Version]:
    versions = []
    for path in folder.iterdir():
        if not _VERSION_NAME.fullmatch(path.name):
            continue
        version = Version(int(path.name), path, _list_files(path))
        if path.is_dir():
            versions.append(version)
        elif path.is_symlink() or path.exists():  # else it was deleted since it was listed
            warn(f"{path} is skipped: not a folder")
    return versions


def _list_files(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """List the files. The loader reports those that are unreadable or deleted meanwhile."""
    files = []
    for parent, folders, names in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *names)):
            with contextlib.suppress(OSError):
                stat = path.lstat()
                files.append((str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(files))
