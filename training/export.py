"""Exports a fitted network as a version folder: SavedModel, golden answers, metadata. Checks it, then publishes it."""

import datetime
import importlib.metadata
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from app.contract import (
    GOLDEN_FILE,
    GOLDEN_TOLERANCES,
    METADATA_FILE,
    ModelMetadata,
    TensorSpec,
    digest_files,
    limit_typicality_difference,
)
from app.runtime.load import SIGNATURE
from training.calibration import Calibration
from training.config import IMAGE_SIZE, Recipe
from training.failures import ExportError
from training.network import build_in_float32
from training.pipeline import Normalization
from training.typicality import Typicality, extract_features

GOLDEN_IMAGES = 32  # quantization may remove some (training/quantize.py)
GOLDEN_GRIDS = (2, 3, 4, 6, 8, 16)
"""Numbers of grid cells of noise along each side of a golden image."""
GOLDEN_CANDIDATES = 512
"""Number of images for each number of cells."""
# In float32 only the order of additions differs, by about 1e-5 (app/contract.py). This allows for GPUs, and is twenty
# times stricter than the service.
TOLERANCE = 1e-4
LIBRARIES = ("keras", "numpy", "openvino", "pillow", "tensorflow")

Classify = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


def rebuild_in_float32(network: keras.Model, recipe: Recipe) -> keras.Model:
    """Return a copy of `network` that computes in float32, whatever precision it was fitted in."""
    size, classes = network.input_shape[1], network.output_shape[-1]
    rebuilt = build_in_float32(size, classes, residual=recipe.residual, dropout=recipe.dropout)
    rebuilt.set_weights(network.get_weights())
    return rebuilt


@dataclass(frozen=True)
class ServedModel:
    """What an exported graph computes: normalization, the network, calibration and typicality."""

    network: keras.Model
    """MiniModel in float32, (N, 32, 32, 3) → (N, classes)."""
    normalize: Normalization
    calibrate: Calibration
    typicality: Typicality


def predict_logits(
    network: keras.Model, normalize: Normalization, images: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """Return the logits (N, classes) of `network` for (N, H, W, 3) uint8 images."""
    return predict(keras.Model(network.inputs, network.get_layer("head").output), normalize, images)


def predict_features(
    network: keras.Model, normalize: Normalization, images: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """Return the features (N, features) by which typicality is measured, for (N, H, W, 3) uint8 images."""
    return predict(extract_features(network), normalize, images)


def predict(model: keras.Model, normalize: Normalization, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the answers of a Keras model for (N, H, W, 3) uint8 images."""
    batches = tf.data.Dataset.from_tensor_slices(images).batch(256).map(normalize)
    answers: npt.NDArray[np.float32] = model.predict(batches, verbose=0)
    return answers


def export_model(served: ServedModel, folder: Path) -> None:
    """Write SavedModel and golden answers into `folder`, and compare the reloaded model's answers with Keras's.

    Args:
        served: the network, and the rest of the graph.
        folder: an empty folder.

    Raises:
        ExportError: the reloaded model's answers differ from Keras's by more than rounding.
    """
    _save(served, folder)

    def classify(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        logits = predict_logits(served.network, served.normalize, images)
        probabilities: npt.NDArray[np.float32] = keras.ops.convert_to_numpy(served.calibrate(logits))
        return probabilities

    images, probabilities = make_golden(classify, served.network.input_shape[1])
    features = predict_features(served.network, served.normalize, images)
    golden = {
        "images": images,
        "probabilities": probabilities,
        "typicality": keras.ops.convert_to_numpy(served.typicality(features)),
    }
    np.savez(folder / GOLDEN_FILE, **golden)
    typicality_limit = limit_typicality_difference("f32", len(served.typicality.held_out))
    reloaded = tf.saved_model.load(str(folder)).signatures[SIGNATURE]
    for batch_size in (1, 7):
        answers = reloaded(images=tf.constant(images[:batch_size]))
        for name, tolerance in (("probabilities", TOLERANCE), ("typicality", typicality_limit)):
            difference = float(np.abs(answers[name].numpy() - golden[name][:batch_size]).max())
            if not difference <= tolerance:
                raise ExportError(
                    f"at batch size {batch_size} the SavedModel's {name} differ from Keras's by {difference:.2g}"
                )


def _save(served: ServedModel, folder: Path) -> None:
    """Save through a tf.Module that owns only the variables, because Keras's own export stores each of them twice."""
    network = served.network
    extract = extract_features(network)
    both = keras.Model(network.inputs, [network.get_layer("head").output, extract.output])

    @tf.function(input_signature=[tf.TensorSpec((None, *network.input_shape[1:]), tf.uint8, name="images")])
    def classify(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits, features = both(served.normalize(images), training=False)
        return {"probabilities": served.calibrate(logits), "typicality": served.typicality(features)}

    module = tf.Module()
    module.weights = [weight.value for weight in network.weights]
    module.classify = classify
    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: classify})


def make_golden(classify: Classify, size: int = IMAGE_SIZE) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Make golden images of seeded smooth noise, and the network's answers for them.

    Cells of different sizes get different labels. The images with the clearest label are chosen, from each label in
    turn, so that a graph that confuses labels or always gives the same answer is detected. Images without a clear label
    come last, because rounding may change their answers by more than the tolerance.

    Returns:
        Images (32, size, size, 3) uint8 and probabilities (32, classes) float32.
    """
    random = np.random.default_rng(0)
    noise = [random.uniform(0, 255, (GOLDEN_CANDIDATES, cells, cells, 3)) for cells in GOLDEN_GRIDS]
    smooth = np.concatenate([tf.image.resize(grid, (size, size), "bicubic") for grid in noise])
    candidates = smooth.clip(0, 255).astype(np.uint8)
    probabilities = classify(candidates)
    runner_up, best = np.sort(probabilities, axis=1)[:, -2:].T
    lead = best - runner_up
    labels = probabilities.argmax(axis=1)
    rank = np.empty(len(labels), int)  # 0: the clearest of its label
    for label in np.unique(labels):
        (same,) = np.nonzero(labels == label)
        rank[same[np.argsort(-lead[same])]] = np.arange(len(same))
    unclear = lead <= 2 * max(GOLDEN_TOLERANCES.values())
    chosen = np.lexsort((-lead, rank, unclear))[:GOLDEN_IMAGES]
    return candidates[chosen], probabilities[chosen]


def describe_model(network: keras.Model, name: str, version: int, recipe: Recipe, **known: Any) -> dict[str, Any]:
    """Return the fields of `ModelMetadata` except `files`; `known` are those that this function can't find out."""
    classes = network.output_shape[-1]
    return {
        "name": name,
        "version": version,
        "input": TensorSpec(name="images", dtype="uint8", shape=network.input_shape[1:]),
        "output": TensorSpec(name="probabilities", dtype="float32", shape=(classes,)),
        "typicality": TensorSpec(name="typicality", dtype="float32", shape=()),
        "parameters": network.count_params(),
        "recipe": recipe.model_dump(mode="json"),
        "libraries": {library: importlib.metadata.version(library) for library in LIBRARIES},
        "created": datetime.datetime.now(datetime.UTC).replace(microsecond=0),
        **known,
    }


def read_commit() -> str:
    """Return the commit of the running code, with "-dirty" if a tracked file was changed; "unknown" outside git."""
    source = Path(__file__)
    try:
        # Installed in another project's checkout (in its .venv), this file does not belong to that repository.
        _ask_git(source.parent, "ls-files", "--error-unmatch", source.name)
        return _ask_git(source.parent, "describe", "--always", "--abbrev=40", "--dirty", "--match=")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("MINIMODEL_COMMIT", "unknown")  # set in the container image, which has no git


def _ask_git(folder: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def stage_version(models: Path) -> Iterator[Path]:
    """Make an empty folder beside the versions in `models`; remove it afterwards unless `publish_version` moved it."""
    models.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".writing-", dir=models))
    staged.chmod(0o755)  # mkdtemp's 0700 would exclude the service's user
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def publish_version(staged: Path, target: Path, fields: dict[str, Any]) -> Path:
    """Write the metadata with every file's digest, then rename `staged` to `target`, so that it appears atomically.

    Raises:
        ExportError: the version exists already, or renaming failed.
    """
    metadata = ModelMetadata(**fields, files=digest_files(staged))
    (staged / METADATA_FILE).write_text(metadata.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if target.exists():  # `rename` would replace an empty folder
        raise ExportError(f"{target} exists already; a version is never overwritten")
    try:
        staged.rename(target)
    except OSError as error:
        raise ExportError(f"can't rename {staged} to {target}: {error.strerror}") from error
    return target
