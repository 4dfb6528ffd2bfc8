import ctypes
import importlib
import os

import pytest
import tensorflow as tf

import training
from training.devices import choose_gpu_precision, select_devices
from training.failures import DeviceError


def test_gpu_required_and_missing_says_what_was_seen(monkeypatch):
    """--require-gpu names TensorFlow's build and the devices it found."""
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind=None: [] if kind == "GPU" else [CPU])
    with pytest.raises(DeviceError, match=r"no GPU: TensorFlow .* CUDA, sees only /physical_device:CPU:0"):
        select_devices(require_gpu=True)


class CPU:
    name = "/physical_device:CPU:0"


@pytest.mark.parametrize(("flags", "precision"), [({"avx512_bf16"}, "mixed_bfloat16"), ({"avx2"}, "float32")])
def test_cpu_precision_follows_its_instructions(monkeypatch, flags, precision):
    """bfloat16 is used where the processor has it."""
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind=None: [])  # noqa: ARG005 -- called by name
    monkeypatch.setattr("app.runtime.cpu.read_cpu_flags", lambda: flags)
    devices = select_devices()
    assert (devices.precision, devices.jit_compile) == (precision, False)


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [([(8, 0), (9, 0)], "mixed_bfloat16"), ([(8, 6), (7, 5)], "mixed_float16"), ([(6, 1)], "float32")],
)
def test_gpu_precision_is_one_that_all_have(capabilities, precision):
    """The oldest GPU decides."""
    assert choose_gpu_precision(capabilities) == precision


@pytest.mark.parametrize(("count", "jit_compile"), [(1, True), (2, False)])
def test_xla_is_for_one_gpu_alone(monkeypatch, count, jit_compile):
    """Compiled by it, one GPU would reach for another's copy of a variable, and MirroredStrategy fail."""
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind=None: ["GPU"] * count)  # noqa: ARG005
    monkeypatch.setattr("tensorflow.config.experimental.set_memory_growth", lambda gpu, enable: None)  # noqa: ARG005
    detail = {"compute_capability": (8, 0), "device_name": "A100"}
    monkeypatch.setattr("tensorflow.config.experimental.get_device_details", lambda gpu: detail)  # noqa: ARG005
    monkeypatch.setattr("tensorflow.distribute.MirroredStrategy", lambda: "mirrored")
    devices = select_devices(require_gpu=True)
    assert devices.jit_compile is jit_compile
    assert (devices.strategy == "mirrored") == (count > 1)
    assert devices.description == f"{count} GPU: {', '.join(['A100'] * count)}"


def test_float32_is_float32(monkeypatch):
    """Not TF32, which TensorFlow takes for it on a GPU that has it: the export is compared in float32."""
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind=None: [])  # noqa: ARG005 -- called by name
    tf.config.experimental.enable_tensor_float_32_execution(True)  # noqa: FBT003 - as it is by default
    select_devices()
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


@pytest.mark.parametrize(("is_there", "level"), [(False, "3"), (True, "2")])
def test_a_machine_without_a_gpu_starts_without_an_error(monkeypatch, is_there, level):
    """TensorFlow logs a missing driver as an error. With a driver, errors are shown; a level of one's own holds."""

    def load(_):
        if not is_there:
            raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    importlib.reload(training)
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == level
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    importlib.reload(training)
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"
