"""Finds the versions in a folder."""

import re
from pathlib import Path
from typing import NamedTuple

from app.errors import RefusedVersionError

_VERSION_NAME = re.compile(r"[1-9][0-9]{0,17}")


class Version(NamedTuple):
    """A version folder at one moment. Once a file changes it is another `Version`, which is tried anew."""

    number: int
    folder: Path
    files: tuple[tuple[str, int, int], ...]  # path, bytes, modification time in ns


def find_versions(folder: Path) -> list[Version]:
    """Return the versions in `folder`, newest first.

    Raises:
        RefusedVersionError: there are none, or versions of several models.
        OSError: the folder can't be read.
    """
    if not folder.is_dir():
        raise RefusedVersionError(f"{folder} is no folder; APP_MODEL_DIR names where the versions are")
    versions = _list_versions(folder)
    if not versions:
        models = {
            model.name: found
            for model in folder.iterdir()
            if model.is_dir() and not model.name.startswith(".") and (found := _list_versions(model))
        }
        if len(models) > 1:
            raise RefusedVersionError(
                f"{folder} holds several models ({', '.join(sorted(models))}); let APP_MODEL_DIR name one of them"
            )
        versions = next(iter(models.values()), [])
    if not versions:
        raise RefusedVersionError(f"{folder} holds no version; expected {folder}/<name>/<version>/")
    return sorted(versions, reverse=True)


def _list_versions(folder: Path) -> list[Version]:
    return [
        Version(int(path.name), path, _list_files(path))
        for path in folder.iterdir()
        if _VERSION_NAME.fullmatch(path.name) and path.is_dir()
    ]


def _list_files(folder: Path) -> tuple[tuple[str, int, int], ...]:
    stats = ((str(path.relative_to(folder)), path.lstat()) for path in sorted(folder.rglob("*")))
    return tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats)
