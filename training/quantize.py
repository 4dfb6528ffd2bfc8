"""Post-training quantization: the exported graph in 8-bit integers, beside it in the version's folder.

By NNCF, which the extra `quantize` installs: it finds the range of each activation on training images and corrects the
biases for what rounding shifts. Pixels in, probabilities out and the calibration before them stay as they are: with 8
bits most of the unlikely classes would get the same probability.
"""

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.contract import GOLDEN_FILE, GOLDEN_TOLERANCES, INT8_FILE
from app.runtime.load import load_runtime
from app.runtime.openvino import make_core  # also keeps OpenVINO and NNCF from reporting to their makers
from training.errors import ExportError
from training.graph import list_calibration

CALIBRATION_IMAGES = 300
"""What NNCF takes unless told otherwise."""


def quantize_model(folder: Path, images: npt.NDArray[np.uint8], seed: int) -> None:
    """Write the quantized graph of the SavedModel in `folder` beside it, and check it by the golden answers.

    Noise is not what quantization was calibrated on. An image whose answer it moves by more than half of what the
    service accepts is golden no longer: another processor, which rounds in other ways, might refuse the version for it.

    Args:
        folder: a version's folder, exported and not yet published.
        images: (N, H, W, 3) from the training split; of these a few are drawn to calibrate with.
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
    exact = nncf.IgnoredScope(names=list_calibration(graph))
    quantized = nncf.quantize(graph, samples, subset_size=count, ignored_scope=exact)
    path = folder / INT8_FILE
    path.parent.mkdir()
    openvino.save_model(quantized, path, compress_to_fp16=False)

    with np.load(folder / GOLDEN_FILE) as golden:
        images, probabilities = golden["images"], golden["probabilities"]
    answers = load_runtime(folder, name="openvino", precision="int8", threads=0).predict(images)
    difference = np.abs(answers - probabilities).max(axis=1)
    steady = difference <= GOLDEN_TOLERANCES["int8"] / 2
    if 2 * steady.sum() < len(steady):
        median = float(np.median(difference))
        raise ExportError(f"quantized, it differs from Keras by {median:.2g}; --resume exports it without --quantize")
    np.savez(folder / GOLDEN_FILE, images=images[steady], probabilities=probabilities[steady])
