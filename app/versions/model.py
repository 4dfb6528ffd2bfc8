"""A model version that may serve: verified, warm, named. Knows folders and runtimes, nothing of queues or the web.

A version is checked in this order, and the first failure refuses it: its metadata parses → its files are the ones that
the metadata names → if asked for, another process reads its graph and survives → a runtime loads it, with the
signature that the metadata describes → the golden images give the golden probabilities, in batches of every size and
alone. So each has been run before a client needs it.
"""

import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from app.contract import METADATA_FILE, DigestError, ModelMetadata, verify_files
from app.errors import InferenceError, RefusedVersionError
from app.runtime.load import Images, Probabilities, Runtime, count_lanes, load_runtime
from app.runtime.precision import choose_precision
from app.settings import Settings
from app.versions.golden import verify_golden

# Artifacts are input too: what is read into memory whole is bounded first.
MAX_METADATA_BYTES = 2**20


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


class Load(Protocol):
    """Gives the model in a version folder, or raises as `load_model` does."""

    def __call__(self, folder: Path, *, guarded: bool = False) -> Model:
        """Load it; if `guarded` so that no file in it can end this process."""


def make_loader(settings: Settings, *, batch_sizes: Sequence[int]) -> Load:
    """Return the function that loads a version as `settings` say, ready for batches of these sizes."""
    lanes = count_lanes(settings.runtime, settings.inference_threads)

    def load(folder: Path, *, guarded: bool = False) -> Model:
        def load_chosen(folder: Path, metadata: ModelMetadata) -> Runtime:
            return load_runtime(
                folder,
                name=settings.runtime,
                precision=choose_precision(settings.precision, metadata),
                threads=settings.inference_threads,
                guarded=guarded,
            )

        return load_model(folder, load_runtime=load_chosen, batch_sizes=batch_sizes, lanes=lanes)

    return load


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
    verify_golden(model, folder, batch_sizes)
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

    That is most of what a lane's first batch takes longer. Other sizes are left to the golden images, in any lane: to
    run them in each would take longer, on processors that serve another version meanwhile.
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
