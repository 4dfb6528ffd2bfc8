"""Post-training quantization: adds the exported graph in int8 to the version's folder.

NNCF (the extra `quantize`) measures the range of each activation on training images, and corrects the biases.
Calibration and typicality stay in float32: in 8 bits, most unlikely classes would get the same probability. The
distances of held-out images are measured again with the quantized network.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.contract import GOLDEN_FILE, GOLDEN_TOLERANCES, INT8_FILE, limit_typicality_difference
from app.runtime.load import load_runtime
from app.runtime.openvino import make_core  # also turns off the telemetry of OpenVINO and NNCF
from training.failures import ExportError
from training.graph import find_held_out, list_exact
from training.typicality import summarize_distances

BLOCK = 100  # images to run at once; all would not fit into memory
PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}
"""Precision of the layers that are not quantized, as in the service."""
CALIBRATION_IMAGES = 300
"""NNCF's default."""


def quantize_model(folder: Path, images: npt.NDArray[np.uint8], held_out: npt.NDArray[np.uint8], seed: int) -> None:
    """Write the quantized graph of the SavedModel in `folder`, and check it with the golden answers.

    Removes golden images whose answers change by more than half of the service's tolerance: another CPU, which rounds
    differently, might refuse the version because of them.

    Args:
        folder: a version's folder, exported and not yet published.
        images: (N, H, W, 3), the training split, from which calibration images are drawn.
        held_out: (M, H, W, 3), the validation split, for typicality.
        seed: of the draw.

    Raises:
        ExportError: more than half of the golden images would be removed.
        RefusedVersionError: the runtime can't load it.
    """
    import nncf  # noqa: PLC0415 - an extra, and seconds to import
    import openvino  # noqa: PLC0415 - after app.runtime.openvino

    nncf.set_log_level(logging.ERROR)
    count = min(CALIBRATION_IMAGES, len(images))
    drawn = np.random.default_rng(seed).choice(len(images), count, replace=False)
    samples = nncf.Dataset([images[index : index + 1] for index in drawn])
    graph = make_core().read_model(folder)
    exact = nncf.IgnoredScope(names=list_exact(graph))
    quantized = nncf.quantize(graph, samples, subset_size=count, ignored_scope=exact)
    _measure_held_out(quantized, held_out)
    path = folder / INT8_FILE
    path.parent.mkdir()
    openvino.save_model(quantized, path, compress_to_fp16=False)

    with np.load(folder / GOLDEN_FILE) as file:
        golden = dict(file)
    answers = load_runtime(folder, name="openvino", precision="int8", threads=0).predict(golden["images"])
    difference = np.abs(answers.probabilities - golden["probabilities"]).max(axis=1)
    moved = np.abs(answers.typicality - golden["typicality"])
    steady = (difference <= GOLDEN_TOLERANCES["int8"] / 2) & (
        moved <= limit_typicality_difference("int8", len(held_out)) / 2
    )
    if 2 * steady.sum() < len(steady):
        median = float(np.median(difference))
        raise ExportError(f"int8 differs from Keras by {median:.2g}; --resume exports the run without --quantize")
    np.savez(folder / GOLDEN_FILE, **{name: array[steady] for name, array in golden.items()})


def _measure_held_out(graph: Any, images: npt.NDArray[np.uint8]) -> None:
    """Replace the distances of held-out `images` with those that the quantized graph computes."""
    import openvino  # noqa: PLC0415 - after app.runtime.openvino

    distances, held_out = find_held_out(graph)
    measure = make_core().compile_model(openvino.Model([distances], graph.get_parameters()), "CPU", PRECISION)
    blocks = (images[start : start + BLOCK] for start in range(0, len(images), BLOCK))
    measured = np.concatenate([measure(block)[0].ravel() for block in blocks])
    held_out.replace(openvino.opset13.constant(summarize_distances(measured)).output(0))
