"""Post-training quantization: the exported graph in 8-bit integers, beside it in the version's folder.

By NNCF, which the extra `quantize` installs: it finds the range of each activation on training images and corrects the
biases for what rounding shifts. Calibration and typicality stay in float32: with 8 bits most of the unlikely classes
would get the same probability. The distances that typicality compares with are measured again, since those of a
quantized network are others.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.contract import GOLDEN_FILE, GOLDEN_TOLERANCES, INT8_FILE, limit_typicality_difference
from app.runtime.load import load_runtime
from app.runtime.openvino import make_core  # also keeps OpenVINO and NNCF from reporting to their makers
from training.failures import ExportError
from training.graph import find_held_out, list_exact
from training.typicality import summarize_distances

BLOCK = 100
PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}
"""Of what is not quantized, as the service runs it."""
CALIBRATION_IMAGES = 300
"""What NNCF takes unless told otherwise."""


def quantize_model(folder: Path, images: npt.NDArray[np.uint8], held_out: npt.NDArray[np.uint8], seed: int) -> None:
    """Write the quantized graph of the SavedModel in `folder` beside it, and check it by the golden answers.

    Noise is not what quantization was calibrated on. An image whose answer it moves by more than half of what the
    service accepts is golden no longer: another processor, which rounds in other ways, might refuse the version for it.

    Args:
        folder: a version's folder, exported and not yet published.
        images: (N, H, W, 3) from the training split; of these a few are drawn to calibrate with.
        held_out: (M, H, W, 3), the validation split, by which typicality is measured.
        seed: of the draw.

    Raises:
        ExportError: such images are more than half of the golden ones.
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
        raise ExportError(f"quantized, it differs from Keras by {median:.2g}; --resume exports it without --quantize")
    np.savez(folder / GOLDEN_FILE, **{name: array[steady] for name, array in golden.items()})


def _measure_held_out(graph: Any, images: npt.NDArray[np.uint8]) -> None:
    """Put the distances of held-out `images`, as the quantized graph measures them, in place of the exact graph's."""
    import openvino  # noqa: PLC0415 - after app.runtime.openvino

    distances, held_out = find_held_out(graph)
    measure = make_core().compile_model(openvino.Model([distances], graph.get_parameters()), "CPU", PRECISION)
    blocks = (images[start : start + BLOCK] for start in range(0, len(images), BLOCK))
    measured = np.concatenate([measure(block)[0].ravel() for block in blocks])
    held_out.replace(openvino.opset13.constant(summarize_distances(measured)).output(0))
