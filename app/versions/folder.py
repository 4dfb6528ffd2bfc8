"""Finds the versions in a folder, among whatever else is there."""

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
    """A version folder at one moment. Once a file changes it is another `Version`, which is tried anew."""

    number: int
    folder: Path
    files: tuple[tuple[str, int, int], ...]  # path, bytes, modification time in ns


def find_versions(folder: Path, warn: Warn = lambda _: None) -> list[Version]:
    """Return the versions in `folder`, newest first.

    Files and folders that are no versions are passed over, and so is a version that is deleted meanwhile. A version
    that can't be read is a version: loading it says why.

    Args:
        folder: holds one `<name>/<version>/`, or the `<version>` folders themselves, or is one of these.
        warn: called with a line for each neighbour that an operator might take for a version or a model.

    Raises:
        RefusedVersionError: there are none, or versions of several models.
        OSError: the folder can't be read.
    """
    if not folder.is_dir():
        raise RefusedVersionError(f"{folder} is not a folder; APP_MODEL_DIR names the folder of versions")
    versions = _list_versions(folder, warn)
    if not versions and (folder / METADATA_FILE).exists():
        versions = [_open_version(folder)]
    if not versions:
        found = {path.name: _look_in(path, warn) for path in folder.iterdir() if not is_litter(path.name)}
        models = sorted(name for name, its_versions in found.items() if its_versions)
        if len(models) > 1:
            raise RefusedVersionError(
                f"{folder} holds several models ({', '.join(models)}); let APP_MODEL_DIR name one of them"
            )
        versions = [version for its_versions in found.values() for version in its_versions]
    if not versions:
        raise RefusedVersionError(f"{folder} holds no version; expected {folder}/<name>/<version>/")
    return sorted(versions, reverse=True)


def _open_version(folder: Path) -> Version:
    real = folder.resolve()  # its number is in its name, also if the folder is given as `.` or by a link
    if not _VERSION_NAME.fullmatch(real.name):
        raise RefusedVersionError(f"{real} holds {METADATA_FILE}, but its name is not a version's number")
    return Version(int(real.name), real, _list_files(real))


def _look_in(folder: Path, warn: Warn) -> list[Version]:
    """Return the versions of what may be a model's folder; one that can't be read must not hide the others."""
    try:
        return _list_versions(folder, warn) if folder.is_dir() else []
    except FileNotFoundError:  # deleted since it was listed
        return []
    except OSError as error:
        warn(f"{folder} is passed over: {error.strerror}")
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
            warn(f"{path} is passed over: not a folder")
    return versions


def _list_files(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """List the files that can be seen; a file that can't, or vanishes meanwhile, is for the loader to miss."""
    files = []
    for parent, folders, names in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *names)):
            with contextlib.suppress(OSError):
                stat = path.lstat()
                files.append((str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(files))
