"""Lists the sample images of a model and their sources: `<name>/samples/`, beside the versions. Knows no HTTP.

Samples belong to the model, because good examples depend on its classes.
"""

import logging
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

SAMPLES_FOLDER = "samples"
INDEX_FILE = "samples.json"
MAX_SAMPLES = 24
MAX_INDEX_BYTES = 2**16

logger = logging.getLogger(__name__)


class Sample(BaseModel):
    """A sample image, its title and its credit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.(jpg|png|webp)$")]
    title: str
    credit: str


_SAMPLES = TypeAdapter(list[Sample])


def list_samples(version: Path | None) -> list[Sample]:
    """Return the samples beside the folder of a version, if there are any."""
    if version is None:
        return []
    folder = version.parent / SAMPLES_FOLDER
    try:
        with (folder / INDEX_FILE).open("rb") as file:
            samples = _SAMPLES.validate_json(file.read(MAX_INDEX_BYTES))[:MAX_SAMPLES]
    except FileNotFoundError:
        return []
    except (OSError, ValidationError) as error:
        logger.warning("%s can't be read: %s", folder / INDEX_FILE, error)
        return []
    return [sample for sample in samples if _is_inside(folder / sample.file, folder)]


def find_sample(version: Path | None, name: str) -> Path | None:
    """Return the path of the sample `name`; None if there is none."""
    found = next((sample for sample in list_samples(version) if sample.file == name), None)
    return version.parent / SAMPLES_FOLDER / found.file if version and found else None


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether `path` is a file in `folder`, without a symbolic link out of it."""
    return path.is_file() and path.resolve().parent == folder.resolve()
