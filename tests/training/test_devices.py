"""Behaviour of training.devices."""

import ctypes
import importlib
import os

import pytest
import tensorflow as tf

import training
from training.devices import choose_gpu_precision, select_devices
from training.failures import DeviceError


def test_a_missing_gpu_is_reported_with_the_devices_found(monkeypatch):
    """With --require-gpu. The message also describes TensorFlow's build."""
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind=None: [] if kind == "GPU" else [CPU])
    with pytest.raises(DeviceError, match=r"no GPU: TensorFlow .* CUDA, sees only /physical_device:CPU:0"):
        select_devices(require_gpu=True)


class CPU:
    name = "/physical_device:CPU:0"


@pytest.mark.parametrize(("flags", "precision"), [({"avx512_bf16"}, "mixed_bfloat16"), ({"avx2"}, "float32")])
def test_the_precision_on_a_cpu_follows_its_instructions(monkeypatch, flags, precision):
    """bfloat16, if the CPU supports it."""
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind=None: [])  # noqa: ARG005 -- called by name
    monkeypatch.setattr("app.runtime.cpu.read_cpu_flags", lambda: flags)
    devices = select_devices()
    assert (devices.precision, devices.jit_compile) == (precision, False)


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [([(8, 0), (9, 0)], "mixed_bfloat16"), ([(8, 6), (7, 5)], "mixed_float16"), ([(6, 1)], "float32")],
)
def test_the_precision_on_gpus_is_one_that_all_support(capabilities, precision):
    """The oldest GPU decides."""
    assert choose_gpu_precision(capabilities) == precision


@pytest.mark.parametrize(("count", "jit_compile"), [(1, True), (2, False)])
def test_xla_is_only_used_on_a_single_gpu(monkeypatch, count, jit_compile):
    """With XLA, a GPU would access another's copy of a variable, and MirroredStrategy would fail."""
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind=None: ["GPU"] * count)  # noqa: ARG005
    monkeypatch.setattr("tensorflow.config.experimental.set_memory_growth", lambda gpu, enable: None)  # noqa: ARG005
    detail = {"compute_capability": (8, 0), "device_name": "A100"}
    monkeypatch.setattr("tensorflow.config.experimental.get_device_details", lambda gpu: detail)  # noqa: ARG005
    monkeypatch.setattr("tensorflow.distribute.MirroredStrategy", lambda: "mirrored")
    devices = select_devices(require_gpu=True)
    assert devices.jit_compile is jit_compile
    assert (devices.strategy == "mirrored") == (count > 1)
    assert devices.description == f"{count} GPU: {', '.join(['A100'] * count)}"


def test_tf32_is_turned_off(monkeypatch):
    """GPUs use it for float32 by default, and the export is compared in float32."""
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind=None: [])  # noqa: ARG005 -- called by name
    tf.config.experimental.enable_tensor_float_32_execution(True)  # noqa: FBT003 - the default
    select_devices()
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


@pytest.mark.parametrize(("is_there", "level"), [(False, "3"), (True, "2")])
def test_a_missing_gpu_driver_is_not_logged_as_an_error(monkeypatch, is_there, level):
    """As TensorFlow does. With a driver, errors are shown. A log level in the environment takes precedence."""

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
