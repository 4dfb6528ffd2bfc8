"""Loads the newest version without this service's code, with TensorFlow or OpenVINO.

Environment variables: `PEER_RUNTIME` (tensorflow or openvino) and, for OpenVINO, `PEER_PRECISION` (f32, bf16 or int8).
"""

import io
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MODELS = Path(__file__).parents[2] / "models" / "minimodel"
FOLDER = max((path for path in MODELS.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))
CLASS_NAMES: list[str] = json.loads((FOLDER / "metadata.json").read_text(encoding="utf-8"))["class_names"]
SIZE = (32, 32)
MAX_BATCH_SIZE = 32

Images = NDArray[np.uint8]  # (N, 32, 32, 3)
Probabilities = NDArray[np.float32]  # (N, classes)


def load(warm: Iterable[int] = (1, MAX_BATCH_SIZE)) -> Callable[[Images], Probabilities]:
    """Return a function that runs the model; it has run once for each batch size in `warm`."""
    predict = _load_tensorflow() if os.environ["PEER_RUNTIME"] == "tensorflow" else _load_openvino()
    for size in warm:
        predict(np.zeros((size, *SIZE, 3), np.uint8))
    return predict


def decode(data: bytes) -> NDArray[np.uint8]:
    """Return (32, 32, 3) uint8, as in tutorials."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize(SIZE))


def describe(probabilities: NDArray[np.float32]) -> dict[str, Any]:
    """Return the answer for one image."""
    best = int(probabilities.argmax())
    return {"label": CLASS_NAMES[best], "probability": round(float(probabilities[best]), 6)}


def _load_openvino() -> Callable[[Images], Probabilities]:
    # Turns off OpenVINO's telemetry.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None makes the import fail
    import openvino  # noqa: PLC0415 -- only one of the two, to save the other's memory

    precision = os.environ["PEER_PRECISION"]
    config = {"PERFORMANCE_HINT": "LATENCY"}
    source = FOLDER
    if precision == "int8":  # in OpenVINO's format, beside the SavedModel
        found = sorted(FOLDER.rglob("*.xml"))
        if not found:
            raise SystemExit(f"version {FOLDER.name} has no int8 model")
        source = found[0]
    else:
        config["INFERENCE_PRECISION_HINT"] = precision
    compiled = openvino.Core().compile_model(source, "CPU", config)

    def predict(images: Images) -> Probabilities:
        probabilities: Probabilities = compiled(images)[0]
        return probabilities

    return predict


def _load_tensorflow() -> Callable[[Images], Probabilities]:
    import tensorflow as tf  # noqa: PLC0415 -- as above

    loaded = tf.saved_model.load(FOLDER)
    signature = loaded.signatures["serving_default"]

    def predict(images: Images, _owner: object = loaded) -> Probabilities:  # the signature does not keep its variables
        probabilities: Probabilities = signature(images=tf.constant(images))["probabilities"].numpy()
        return probabilities

    return predict
