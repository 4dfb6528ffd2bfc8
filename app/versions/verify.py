"""Loads a version and verifies that it may serve.

The checks run in this order, and the first failure refuses the version:

1. `metadata.json` parses and is consistent.
2. The files are the ones in the metadata (SHA-256).
3. A runtime loads the graph, and its signature is the one in the metadata. (The service first runs all of these checks
   in another process, see `app.versions.preflight`.)
4. The golden images get the golden probabilities, in batches of every size and alone.
5. Every inference worker runs one image, so that no client waits for its kernels.
"""

import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from app.contract import METADATA_FILE, DigestError, ModelMetadata, verify_files
from app.errors import RefusedVersionError
from app.runtime.load import Runtime
from app.versions.golden import verify_golden
from app.versions.model import Model

# Artifacts are untrusted input, so the size of a file that is read into memory is limited.
MAX_METADATA_BYTES = 2**20


def load_model(
    folder: Path,
    *,
    load_runtime: Callable[[Path, ModelMetadata], Runtime],
    batch_sizes: Sequence[int],
    workers: int = 1,
) -> Model:
    """Load, verify and warm the version in `folder`.

    Args:
        folder: a version folder, named by its number.
        load_runtime: loads the graph in a folder whose files have been verified.
        batch_sizes: sizes of the batches that the model will run.
        workers: number of batches that will run at the same time.

    Raises:
        RefusedVersionError: a check failed; the text says which.
        OSError, MemoryError: the version can't be read at the moment, but may be valid.
    """
    metadata = read_metadata(folder)
    try:
        verify_files(folder, metadata)
    except DigestError as error:
        raise RefusedVersionError(f"its files differ from the exported ones: {error}") from error
    model = Model(metadata, load_runtime(folder, metadata), folder)
    _verify_signature(model)
    verify_golden(model, folder, batch_sizes)
    _warm(model, workers)
    return model


def read_metadata(folder: Path) -> ModelMetadata:
    """Read and check a version's metadata.

    Raises:
        RefusedVersionError: it is missing, invalid, or describes something that the service can't run.
        OSError: it can't be read at the moment.
    """
    path = folder / METADATA_FILE
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # reading a pipe or a device might never end
            raise RefusedVersionError(f"{METADATA_FILE} is not a regular file")
        with path.open("rb") as file:
            data = file.read(MAX_METADATA_BYTES + 1)
        if len(data) > MAX_METADATA_BYTES:
            raise RefusedVersionError(f"{METADATA_FILE} is larger than {MAX_METADATA_BYTES:,} bytes")
        metadata = ModelMetadata.model_validate_json(data)
    except FileNotFoundError as error:
        raise RefusedVersionError(f"{METADATA_FILE} can't be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise RefusedVersionError(f"{METADATA_FILE} is not valid: {place}: {first['msg']}") from error
    if str(metadata.version) != folder.name:
        raise RefusedVersionError(
            f"{METADATA_FILE} says version {metadata.version}, but the folder is named {folder.name}"
        )
    if metadata.input.dtype != "uint8" or metadata.input.shape[2:] != (3,):
        raise RefusedVersionError(f"it takes {metadata.input}; images are uint8 (height, width, 3)")
    if metadata.output.dtype != "float32" or metadata.output.shape != (len(metadata.class_names),):
        raise RefusedVersionError(f"it has {len(metadata.class_names)} class names and returns {metadata.output}")
    return metadata


def _verify_signature(model: Model) -> None:
    for role in ("input", "output", "typicality"):
        named, found = getattr(model.metadata, role), getattr(model.runtime, role)
        if named != found:
            raise RefusedVersionError(f"{METADATA_FILE} describes the {role} as {named}, the graph has {found}")


def _warm(model: Model, workers: int) -> None:
    """Run one image in every worker at once, because each worker prepares weights and kernels of its own.

    The other batch sizes ran with the golden images, in any worker. Running each size in each worker would take longer,
    on CPUs that serve another version meanwhile.
    """
    image = np.zeros((1, *model.metadata.input.shape), dtype=np.uint8)
    try:
        with ThreadPoolExecutor(workers) as threads:
            for worker in [threads.submit(model.predict, image) for _ in range(workers)]:
                worker.result()
    except MemoryError:
        raise
    except Exception as error:
        raise RefusedVersionError(f"it fails on an image: {error}") from error
