"""Finds exported versions: the newest of a model, its metadata, the next free number. It imports no TensorFlow."""

import re
from pathlib import Path

from pydantic import ValidationError

from app.contract import METADATA_FILE, DigestError, ModelMetadata, verify_files
from training.failures import VersionError

_VERSION = re.compile(r"[1-9][0-9]*")
CANDIDATE_PREFIX = ".candidate-"
"""Prefix of folders of versions that are set aside; the service ignores them."""


def list_versions(models: Path) -> list[Path]:
    """Return the version folders in `models`, newest first; none if there is no such folder."""
    folders = models.iterdir() if models.is_dir() else ()
    versions = [path for path in folders if _VERSION.fullmatch(path.name) and path.is_dir()]
    return sorted(versions, key=lambda path: int(path.name), reverse=True)


def find_newest(models: Path) -> Path | None:
    """Return the folder of the newest version in `models`, if there is one."""
    return next(iter(list_versions(models)), None)


def next_version(models: Path) -> int:
    """Return the number after the highest version in `models`, the folder of one model."""
    return max((int(path.name) for path in list_versions(models)), default=0) + 1


def next_candidate(models: Path) -> int:
    """Return the number of the next candidate: the next version's number, or the first free one after it."""
    number = next_version(models)
    while (models / f"{CANDIDATE_PREFIX}{number}").exists():
        number += 1
    return number


def read_metadata(folder: Path) -> ModelMetadata:
    """Read a version's metadata, and verify its files.

    Raises:
        VersionError: the metadata can't be read, or a file is missing, unexpected or changed.
    """
    try:
        metadata = ModelMetadata.model_validate_json((folder / METADATA_FILE).read_bytes())
        verify_files(folder, metadata)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise VersionError(f"{folder / METADATA_FILE} is not valid: {'; '.join(faults)}") from error
    except DigestError as error:
        raise VersionError(f"the files in {folder} differ from the exported ones: {error}") from error
    except OSError as error:
        raise VersionError(f"{folder} is not a version: {error.filename}: {error.strerror}") from error
    return metadata
