"""Lists the sample images of a model and their sources: `<name>/samples/`, beside the versions. Knows no HTTP.

Samples belong to the model, because good examples depend on its classes.
"""

import json
import logging
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

SAMPLES_FOLDER = "samples"
INDEX_FILE = "samples.json"
MAX_SAMPLES = 24
MAX_INDEX_BYTES = 2**16
_MAX_NAME = 255  # the limit of file systems
MEDIA_TYPES = {
    ".apng": "image/apng",
    ".avif": "image/avif",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
    ".heic": "image/heic",
    ".heif": "image/heif",
    ".jfif": "image/jpeg",
    ".jpe": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}
"""By the ending of a file's name, in lower case. Python's own table depends on the machine."""

logger = logging.getLogger(__name__)


def _require_image_name(name: str) -> str:
    if not 0 < len(name) <= _MAX_NAME or name.startswith(".") or not name.isprintable() or set(name) & set("/\\"):
        raise ValueError("it is not the plain name of a file in the samples folder")
    if Path(name).suffix.lower() not in MEDIA_TYPES:
        raise ValueError(f"its name ends in none of {', '.join(MEDIA_TYPES)}")
    return name


class Sample(BaseModel):
    """A sample image, its title and its credit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Annotated[str, AfterValidator(_require_image_name)]
    title: str
    credit: str


def list_samples(version: Path | None) -> list[Sample]:
    """Return the samples beside the folder of a version. Bad entries are logged and left out."""
    if version is None:
        return []
    folder = version.parent / SAMPLES_FOLDER
    samples = []
    for number, entry in enumerate(_read_index(folder / INDEX_FILE)[:MAX_SAMPLES], start=1):
        try:
            sample = Sample.model_validate(entry)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, fault["loc"])) or "it"
            reason = f"{place}: {fault['msg'].removeprefix('Value error, ')}"
        else:
            if _is_inside(folder / sample.file, folder):
                samples.append(sample)
                continue
            reason = f"{sample.file} is not a file in {folder}"
        logger.warning("%s: entry %d is left out: %s", folder / INDEX_FILE, number, reason)
    return samples


def find_sample(version: Path | None, name: str) -> Path | None:
    """Return the path of the sample `name`; None if there is none."""
    found = next((sample for sample in list_samples(version) if sample.file == name), None)
    return version.parent / SAMPLES_FOLDER / found.file if version and found else None


def _read_index(path: Path) -> list[Any]:
    try:
        with path.open("rb") as file:
            index = json.loads(file.read(MAX_INDEX_BYTES))
        if not isinstance(index, list):
            raise TypeError("it is not a list")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, RecursionError) as error:
        logger.warning("%s can't be read: %s", path, error)
        return []
    return index


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether `path` is a file in `folder`, without a symbolic link out of it."""
    return path.is_file() and path.resolve().parent == folder.resolve()
