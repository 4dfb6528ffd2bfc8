"""A model version that may serve: verified, warm, named. Knows folders and runtimes, nothing of queues or the web.

A version is checked in this order, and the first failure refuses it: its metadata parses → its files are the ones that
the metadata names → a runtime loads it, with the signature that the metadata describes → the golden images give the
golden probabilities, in batches of every size and alone. So each has been run before a client needs it.
"""

import stat
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from app.contract import GOLDEN_FILE, GOLDEN_TOLERANCES, METADATA_FILE, DigestError, ModelMetadata, verify_files
from app.errors import InferenceError, RefusedVersionError
from app.precision import choose_precision
from app.runtime import Images, Probabilities, Runtime, count_lanes, load_runtime
from app.settings import Settings

# Artifacts are input too: what is read into memory whole is bounded first.
MAX_METADATA_BYTES = 2**20
MAX_GOLDEN_BYTES = 64 * 2**20
MAX_GOLDEN_IMAGES = 256


class Scores(NamedTuple):
    """What one model says of one image."""

    probabilities: NDArray[np.float32]  # (classes,)
    model: "Model"
    image: NDArray[np.uint8]  # (H, W, 3): what it saw

    def rank(self, top_k: int) -> list[tuple[str, float]]:
        """Return the `top_k` most probable classes and their probabilities; of equals, the class that comes first."""
        names = self.model.metadata.class_names
        order = np.argsort(-self.probabilities, kind="stable")[:top_k]
        return [(names[index], float(self.probabilities[index])) for index in order]


@dataclass(frozen=True, eq=False)
class Model:
    """A version that may serve."""

    metadata: ModelMetadata
    runtime: Runtime
    folder: Path | None = None  # None for one that has no files

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width that the model takes, in pixels."""
        height, width, _ = self.metadata.input.shape
        return height, width

    @property
    def num_classes(self) -> int:
        """How many classes the model tells apart."""
        return len(self.metadata.class_names)

    def predict(self, images: Images, *, alone: bool = False) -> Probabilities:
        """Run the model on `images` (N, H, W, 3) uint8; gives (N, classes) float32.

        With `alone` there is nothing else to do, and nobody else who does it: the answer comes soonest.

        Raises:
            InferenceError: the runtime gave something other than N rows of probabilities.
        """
        run = (alone and self.runtime.predict_alone) or self.runtime.predict
        probabilities = run(images)
        if probabilities.shape != (len(images), self.num_classes):
            raise InferenceError(f"{len(images)} images gave probabilities of shape {probabilities.shape}")
        # Not a number fails both comparisons; the margin is for sums rounded in low precision.
        if not ((probabilities >= 0) & (probabilities <= 1 + 1e-3)).all():
            raise InferenceError("the model gave numbers that are no probabilities")
        return probabilities


def make_loader(settings: Settings, *, batch_sizes: Sequence[int]) -> Callable[[Path], Model]:
    """Return the function that loads a version as `settings` say, ready for batches of these sizes."""

    def load_chosen(folder: Path, metadata: ModelMetadata) -> Runtime:
        precision = choose_precision(settings.precision, metadata)
        return load_runtime(folder, name=settings.runtime, precision=precision, threads=settings.inference_threads)

    lanes = count_lanes(settings.runtime, settings.inference_threads)
    return partial(load_model, load_runtime=load_chosen, batch_sizes=batch_sizes, lanes=lanes)


def load_model(
    folder: Path, *, load_runtime: Callable[[Path, ModelMetadata], Runtime], batch_sizes: Sequence[int], lanes: int = 1
) -> Model:
    """Load, verify and warm the version in `folder`.

    Args:
        folder: a version folder, named by its number.
        load_runtime: loads what is in the folder that the metadata describes.
        batch_sizes: of the batches that it will run.
        lanes: how many batches will run beside each other.

    Raises:
        RefusedVersionError: the version may not serve; the text says why.
        OSError, MemoryError: it can't be read now, which says nothing of the version.
    """
    metadata = _read_metadata(folder)
    try:
        verify_files(folder, metadata)
    except DigestError as error:
        raise RefusedVersionError(f"its files are not the ones that were exported: {error}") from error
    model = Model(metadata, load_runtime(folder, metadata), folder)
    _verify_signature(model)
    _warm(model, lanes)
    _verify_golden(model, folder, batch_sizes)
    return model


def _read_metadata(folder: Path) -> ModelMetadata:
    path = folder / METADATA_FILE
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # reading it could take for ever
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
        raise RefusedVersionError(f"{METADATA_FILE} says version {metadata.version}, the folder {folder.name}")
    if metadata.input.dtype != "uint8" or metadata.input.shape[2:] != (3,):
        raise RefusedVersionError(f"it takes {metadata.input}; images are uint8 (height, width, 3)")
    if metadata.output.dtype != "float32" or metadata.output.shape != (len(metadata.class_names),):
        raise RefusedVersionError(f"it has {len(metadata.class_names)} class names and gives {metadata.output}")
    return metadata


def _verify_signature(model: Model) -> None:
    for role in ("input", "output"):
        named, found = getattr(model.metadata, role), getattr(model.runtime, role)
        if named != found:
            raise RefusedVersionError(f"{METADATA_FILE} describes the {role} as {named}, the graph has {found}")


def _warm(model: Model, lanes: int) -> None:
    """Run one image in every lane at once: each lays out the weights and makes kernels of its own.

    That is most of what a lane's first batch takes longer. Other sizes are left to the golden images, in any lane: a
    load takes 1.0 s of processor time then, and with every size in each of two lanes 1.5 (sizes up to 32, float32, AMD
    EPYC), on processors that serve another version meanwhile.
    """
    image = np.zeros((1, *model.metadata.input.shape), dtype=np.uint8)
    try:
        with ThreadPoolExecutor(lanes) as threads:
            for lane in [threads.submit(model.predict, image) for _ in range(lanes)]:
                lane.result()
    except MemoryError:
        raise
    except Exception as error:
        raise RefusedVersionError(f"it fails on an image: {error}") from error


def _verify_golden(model: Model, folder: Path, batch_sizes: Sequence[int]) -> None:
    """Compare what the model gives with what it gave at export, in every way in which it will be run."""
    images, golden = _read_golden(folder / GOLDEN_FILE, model)
    tolerance = GOLDEN_TOLERANCES[model.runtime.precision]
    batches = _deal(len(images), batch_sizes)
    try:
        answers = [model.predict(images[batch]) for batch in batches]
        answers.append(model.predict(images[:1], alone=True))
    except MemoryError:
        raise
    except Exception as error:
        raise RefusedVersionError(f"it fails on its golden images: {error}") from error
    probabilities = np.concatenate(answers)
    golden = golden[np.concatenate([*batches, [0]])]
    worst = float(np.abs(probabilities - golden).max())
    if not worst <= tolerance:  # not a number is no tolerance either
        raise RefusedVersionError(
            f"its golden images give other probabilities than at export: off by {worst:.4f}, "
            f"where {model.runtime.precision} may be off by {tolerance}"
        )
    # The label must be the same wherever an error within the tolerance can't have changed it.
    runner_up, best = np.sort(golden, axis=1)[:, -2:].T
    clear = best - runner_up > 2 * tolerance
    if (probabilities.argmax(axis=1) != golden.argmax(axis=1))[clear].any():
        raise RefusedVersionError("a golden image gets another label than at export")


def _read_golden(path: Path, model: Model) -> tuple[Images, Probabilities]:
    """Read the golden images (N, H, W, 3) and probabilities (N, classes)."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_GOLDEN_BYTES:
                raise RefusedVersionError(f"{GOLDEN_FILE} unpacks to more than {MAX_GOLDEN_BYTES:,} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            images: Any = np.asarray(arrays["images"])  # a member that is no array comes as bytes
            probabilities: Any = np.asarray(arrays["probabilities"])
    except RefusedVersionError:
        raise
    except Exception as error:  # NumPy and zipfile raise half a dozen kinds for what is no such file
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, FileNotFoundError):
            raise  # the volume's trouble, not the file's
        raise RefusedVersionError(f"{GOLDEN_FILE} can't be read: {error}") from error
    count = len(images) if images.ndim else 0
    if (
        not 1 <= count <= MAX_GOLDEN_IMAGES
        or (images.dtype, images.shape[1:]) != (np.uint8, model.metadata.input.shape)
        or (probabilities.dtype, probabilities.shape) != (np.float32, (count, model.num_classes))
    ):
        raise RefusedVersionError(
            f"{GOLDEN_FILE} holds images {images.dtype} {images.shape} and probabilities "
            f"{probabilities.dtype} {probabilities.shape}, which do not fit the model"
        )
    return images, probabilities


def _deal(count: int, batch_sizes: Sequence[int]) -> list[NDArray[np.intp]]:
    """Put the indices 0 to `count` - 1 into batches of every size, over and over until each index was in one."""
    batches: list[NDArray[np.intp]] = []
    sizes = cycle(batch_sizes)
    start = 0
    while start < count or len(batches) < len(batch_sizes):
        stop = start + next(sizes)
        batches.append(np.arange(start, stop) % count)
        start = stop
    return batches
