"""Selects devices and precision: every visible GPU, else the CPU."""

from dataclasses import dataclass

import tensorflow as tf

from app.runtime.cpu import count_cpus, describe_cpu, has_bf16
from training.failures import DeviceError

# The compute capability of the first NVIDIA GPUs whose tensor cores support the type: Volta float16, Ampere bfloat16.
FLOAT16_CAPABILITY = (7, 0)
BFLOAT16_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class Devices:
    """Where and how to train."""

    strategy: tf.distribute.Strategy
    precision: str
    """A Keras dtype policy: "float32", "mixed_bfloat16" or "mixed_float16"."""
    jit_compile: bool
    """Whether to use XLA: faster on a GPU, slower than oneDNN on a CPU, not supported by MirroredStrategy."""
    description: str


def select_devices(*, require_gpu: bool = False) -> Devices:
    """Select every visible GPU, or the CPU if there is none.

    Raises:
        DeviceError: `require_gpu` is set and TensorFlow sees no GPU.
    """
    tf.get_logger().setLevel("ERROR")  # its warnings about tracing are for programmers
    # TF32 (Ampere and later) rounds float32 factors to 10 bits of mantissa, but golden answers and export
    # tolerances need float32. Training in 16 bits does not use TF32.
    tf.config.experimental.enable_tensor_float_32_execution(False)  # noqa: FBT003 - TensorFlow's
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        if require_gpu:
            seen = ", ".join(device.name for device in tf.config.list_physical_devices())
            built = "with" if tf.test.is_built_with_cuda() else "without"
            raise DeviceError(f"no GPU: TensorFlow {tf.__version__}, built {built} CUDA, sees only {seen}")
        precision = "mixed_bfloat16" if has_bf16() else "float32"
        description = f"{count_cpus()} cores of {describe_cpu()}"
        return Devices(tf.distribute.get_strategy(), precision, jit_compile=False, description=description)
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, enable=True)
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    precision = choose_gpu_precision([detail.get("compute_capability", (0, 0)) for detail in details])
    several = len(gpus) > 1
    strategy = tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()
    names = ", ".join(detail.get("device_name", "GPU") for detail in details)
    # In a function compiled by XLA, a device reads another device's copy of a variable (tensorflow issue 53140).
    return Devices(strategy, precision, jit_compile=not several, description=f"{len(gpus)} GPU: {names}")


def choose_gpu_precision(capabilities: list[tuple[int, int]]) -> str:
    """Choose the fastest Keras dtype policy that GPUs of all these compute capabilities support in hardware."""
    if min(capabilities) >= BFLOAT16_CAPABILITY:
        return "mixed_bfloat16"
    return "mixed_float16" if min(capabilities) >= FLOAT16_CAPABILITY else "float32"
