"""Compares a version's answers for its golden images with the answers at export."""

import zipfile
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contract import GOLDEN_FILE, GOLDEN_TOLERANCES, limit_typicality_difference
from app.errors import RefusedVersionError
from app.runtime.load import Answers, Images
from app.versions.model import Model

# Artifacts are untrusted input, so the size of a file that is read into memory is limited.
MAX_GOLDEN_BYTES = 64 * 2**20
MAX_GOLDEN_IMAGES = 256


def verify_golden(model: Model, folder: Path, batch_sizes: Sequence[int]) -> None:
    """Compare the model's answers with those at export, in batches of every size and alone.

    Raises:
        RefusedVersionError: they differ by more than the tolerance of the runtime's precision, or the model fails.
        OSError, MemoryError: the golden images can't be read or run at the moment.
    """
    images, (golden, golden_typicality) = _read_golden(folder / GOLDEN_FILE, model)
    precision = model.runtime.precision
    tolerance = GOLDEN_TOLERANCES[precision]
    batches = _make_batches(len(images), batch_sizes)
    try:
        answers = [model.predict(images[batch]) for batch in batches]
        answers.append(model.predict(images[:1], alone=True))
    except MemoryError:
        raise
    except Exception as error:
        raise RefusedVersionError(f"it fails on its golden images: {error}") from error
    probabilities = np.concatenate([answer.probabilities for answer in answers])
    order = np.concatenate([*batches, [0]])
    golden = golden[order]
    worst = float(np.abs(probabilities - golden).max())
    if not worst <= tolerance:  # NaN must fail too
        raise RefusedVersionError(
            f"its golden images have other probabilities than at export: they differ by {worst:.4f}; "
            f"the tolerance of {precision} is {tolerance}"
        )
    # The label must be the same wherever an error within the tolerance can't have changed it.
    runner_up, best = np.sort(golden, axis=1)[:, -2:].T
    clear = best - runner_up > 2 * tolerance
    if (probabilities.argmax(axis=1) != golden.argmax(axis=1))[clear].any():
        raise RefusedVersionError("a golden image has another label than at export")
    if golden_typicality is not None:
        typicality = np.concatenate([answer.typicality for answer in answers if answer.typicality is not None])
        worst = float(np.abs(typicality - golden_typicality[order]).max())
        tolerance = limit_typicality_difference(precision, model.metadata.data.validation_size)
        if not worst <= tolerance:
            raise RefusedVersionError(
                f"its golden images have another typicality than at export: it differs by {worst:.4f}; "
                f"the tolerance of {precision} is {tolerance:.4g}"
            )


def _read_golden(path: Path, model: Model) -> tuple[Images, Answers]:
    """Read the golden images (N, H, W, 3), and the model's answers at export."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_GOLDEN_BYTES:
                raise RefusedVersionError(f"{GOLDEN_FILE} unpacks to more than {MAX_GOLDEN_BYTES:,} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            images: Any = np.asarray(arrays["images"])  # NumPy returns a member that is not an array as bytes
            probabilities: Any = np.asarray(arrays["probabilities"])
            typicality: Any = np.asarray(arrays["typicality"]) if model.metadata.typicality else None
    except RefusedVersionError:
        raise
    except Exception as error:  # NumPy and zipfile raise many kinds of errors for a damaged file
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, FileNotFoundError):
            raise  # the volume failed, not the file
        raise RefusedVersionError(f"{GOLDEN_FILE} can't be read: {error}") from error
    count = len(images) if images.ndim else 0
    if (
        not 1 <= count <= MAX_GOLDEN_IMAGES
        or (images.dtype, images.shape[1:]) != (np.uint8, model.metadata.input.shape)
        or (probabilities.dtype, probabilities.shape) != (np.float32, (count, model.num_classes))
    ):
        raise RefusedVersionError(
            f"{GOLDEN_FILE} contains images {images.dtype} {images.shape} and probabilities "
            f"{probabilities.dtype} {probabilities.shape}, which don't fit the model"
        )
    if typicality is not None and (typicality.dtype, typicality.shape) != (np.float32, (count,)):
        raise RefusedVersionError(f"{GOLDEN_FILE} contains typicality {typicality.dtype} {typicality.shape}")
    return images, Answers(probabilities, typicality)


def _make_batches(count: int, batch_sizes: Sequence[int]) -> list[NDArray[np.intp]]:
    """Distribute the indices 0 to `count` - 1 over batches, using every size and every index at least once."""
    batches: list[NDArray[np.intp]] = []
    sizes = cycle(batch_sizes)
    start = 0
    while start < count or len(batches) < len(batch_sizes):
        stop = start + next(sizes)
        batches.append(np.arange(start, stop) % count)
        start = stop
    return batches
