"""Chooses the arithmetic in which OpenVINO runs a version."""

from app.contract import INT8_FILE, ModelMetadata, Precision
from app.errors import RefusedVersionError
from app.runtime.cpu import has_int8

MAX_INT8_LOSS = 0.002  # 0.2 points of accuracy on the test set


def choose_precision(asked: Precision, metadata: ModelMetadata) -> Precision:
    """Resolve `auto` to int8 if the version has it, the CPU supports it natively and it cost no accuracy.

    Returns:
        The precision to run in; `auto` leaves it to OpenVINO.

    Raises:
        RefusedVersionError: `asked` is int8, and the version was not quantized.
    """
    quantized = INT8_FILE in metadata.files
    if asked == "int8" and not quantized:
        raise RefusedVersionError("APP_PRECISION=int8, but it was exported without --quantize")
    if asked == "auto" and quantized and has_int8() and _is_as_accurate(metadata):
        return "int8"
    return asked


def _is_as_accurate(metadata: ModelMetadata) -> bool:
    runtimes = metadata.metrics.runtimes
    if not {"openvino f32", "openvino int8"} <= runtimes.keys():
        return False
    loss = runtimes["openvino f32"].accuracy - runtimes["openvino int8"].accuracy
    return round(loss, 6) <= MAX_INT8_LOSS  # in binary, 0.907 - 0.905 is more than 0.002
