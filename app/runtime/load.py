"""Loads the model in a version folder with OpenVINO (the default) or TensorFlow.

Both read the same SavedModel; OpenVINO also reads the quantized graph beside it. TensorFlow is imported only if it is
used, so the service runs without it. `app.versions` decides whether the model may serve.
"""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.contract import INT8_FILE, Precision, RuntimeName, TensorSpec
from app.errors import RefusedVersionError
from app.runtime.cpu import count_affine_cpus, count_cpus
from app.runtime.openvino import make_core

if TYPE_CHECKING:
    from openvino import CompiledModel

SIGNATURE = "serving_default"
TYPICALITY = "typicality"
MAX_GRAPH_BYTES = 16 * 2**20  # of an XML file, which takes many times its size in memory to parse

Images = NDArray[np.uint8]  # (N, H, W, 3)
Probabilities = NDArray[np.float32]  # (N, classes)


class Answers(NamedTuple):
    """A model's output for a batch of N images."""

    probabilities: Probabilities  # (N, classes)
    typicality: NDArray[np.float32] | None = None  # (N,); None if the version has no such output


@dataclass(frozen=True)
class Runtime:
    """A loaded model: the runtime and arithmetic that run it, and its signature."""

    name: str
    precision: str
    input: TensorSpec
    output: TensorSpec
    predict: Callable[[Images], Answers]
    """Runs a batch; may be called from as many threads at once as `count_workers` returns."""
    predict_alone: Callable[[Images], Answers] | None = None
    """Runs a batch on all threads, for the lowest latency on an idle machine. None if `predict` does that itself."""
    typicality: TensorSpec | None = None
    """The second output; None if there is none."""


def load_runtime(folder: Path, *, name: RuntimeName, precision: Precision, threads: int) -> Runtime:
    """Load the model in `folder`.

    Args:
        folder: a version folder.
        name: the runtime.
        precision: arithmetic to run in; `auto` leaves the choice to the runtime, which runs the SavedModel; `int8` runs
            the quantized graph.
        threads: number of threads that run the model; 0 takes as many as the container may use.

    Raises:
        RefusedVersionError: the runtime can't load it, can't run in `precision`, or is not installed.
        OSError, MemoryError: the machine has too few resources at the moment.
    """
    if name == "tensorflow":
        return _load_tensorflow(folder, threads or count_cpus())
    return _load_openvino(folder, precision, threads or count_cpus())


def import_runtime(name: RuntimeName) -> None:
    """Import the runtime's libraries, so that memory that `load_runtime` takes afterwards is the model's.

    Raises:
        RefusedVersionError: the runtime is not installed.
    """
    if name == "tensorflow":  # OpenVINO is imported above
        _import_tensorflow()


def count_workers(name: RuntimeName, threads: int) -> int:
    """Return how many batches this runtime should run at the same time, with `threads` as given to `load_runtime`.

    OpenVINO runs one on each thread: threads that share a batch wait for each other at every layer, which wastes a few
    percent of the processor at best, and far more where other processes share its cores.
    """
    return (threads or count_cpus()) if name == "openvino" else 1


def _load_openvino(folder: Path, precision: Precision, threads: int) -> Runtime:
    core = make_core()
    config: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads}
    quantized = precision == "int8"
    graph = folder / INT8_FILE if quantized else folder
    if precision != "auto":
        # Layers that are not quantized run in float32, as they did when the accuracy was measured.
        config["INFERENCE_PRECISION_HINT"] = "f32" if quantized else precision
    if quantized and graph.is_file() and graph.stat().st_size > MAX_GRAPH_BYTES:
        raise RefusedVersionError(f"{INT8_FILE} is larger than {MAX_GRAPH_BYTES:,} bytes")
    try:
        model = core.read_model(graph)
        workers = core.compile_model(model, "CPU", config | {"NUM_STREAMS": threads, "ENABLE_CPU_PINNING": False})
        # Pinning keeps threads that share a batch on different cores. With fewer threads than cores, every replica
        # would pin its threads to the same cores.
        pin = {"ENABLE_CPU_PINNING": threads == count_affine_cpus()}
        whole = core.compile_model(model, "CPU", config | {"NUM_STREAMS": 1} | pin) if threads > 1 else None
    except (OSError, RuntimeError) as error:
        raise RefusedVersionError(f"OpenVINO can't load it: {' '.join(str(error).split())[:500]}") from error
    used = "int8" if quantized else workers.get_property("INFERENCE_PRECISION_HINT").to_string()
    if precision not in {"auto", used}:
        raise RefusedVersionError(f"APP_PRECISION={precision}, but this CPU would run it in {used}")
    if len(model.inputs) != 1:
        raise RefusedVersionError(f"it has {len(model.inputs)} inputs, not one")
    outputs = {min(port.names, default=""): port for port in model.outputs}
    output, typicality = _name_outputs(list(outputs))
    predict = _Workers(workers, threads, [output, typicality] if typicality else [output])
    return Runtime(
        "openvino",
        used,
        _describe_port("input", model.inputs[0]),
        _describe_port("output", outputs[output]),
        predict,
        _Whole(whole, predict) if whole else None,
        _describe_port("typicality", outputs[typicality]) if typicality else None,
    )


def _name_outputs(names: Sequence[str]) -> tuple[str, str | None]:
    """Return the names of the probabilities and of the typicality, if there is one."""
    others = [name for name in names if name != TYPICALITY]
    if len(others) != 1:
        raise RefusedVersionError(f"it has the outputs {', '.join(names)}; expected one, and optionally {TYPICALITY}")
    return others[0], TYPICALITY if TYPICALITY in names else None


class _Workers:
    """Runs batches at the same time, each on one thread."""

    def __init__(self, model: "CompiledModel", count: int, outputs: Sequence[str]) -> None:
        """Take the model compiled for `count` workers, and the names of its outputs in the order of `Answers`."""
        self.outputs = outputs
        self._idle = deque(model.create_infer_request() for _ in range(count))
        self._room = threading.BoundedSemaphore(count)

    def __call__(self, images: Images) -> Answers:
        """Run a batch; waits while every worker is busy."""
        with self._room:
            request = self._idle.popleft()
            try:
                # `start_async` runs it on the OpenVINO thread that has this worker's kernels ready. `infer` would run
                # it on the calling thread, which OpenVINO may assign to a worker that is busy.
                request.start_async([images], share_inputs=True)
                request.wait()
                answers = Answers(*(request.get_tensor(name).data.copy() for name in self.outputs))
            finally:
                self._idle.append(request)
        return answers


class _Whole:
    """Runs a batch on all threads; passes a batch to the workers if another one is running."""

    def __init__(self, model: "CompiledModel", workers: _Workers) -> None:
        """Take the model compiled for one batch on all threads."""
        self._request = model.create_infer_request()
        self._free = threading.Lock()
        self._workers = workers

    def __call__(self, images: Images) -> Answers:
        """Run a batch."""
        if not self._free.acquire(blocking=False):
            return self._workers(images)
        try:
            self._request.infer([images], share_inputs=True)
            answers = Answers(*(self._request.get_tensor(name).data.copy() for name in self._workers.outputs))
        finally:
            self._free.release()
        return answers


def _describe_port(role: str, port: Any) -> TensorSpec:
    shape = port.partial_shape
    dimensions = [0 if shape.rank.is_dynamic or d.is_dynamic else d.get_length() for d in shape]
    return _make_spec(role, min(port.names, default=""), str(port.element_type.to_dtype()), dimensions)


def _import_tensorflow() -> Any:
    # TensorFlow reads these when it is imported. They silence its start-up messages, and let processes share a GPU.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    try:
        import tensorflow as tf  # noqa: PLC0415 -- takes seconds and half a gigabyte
    except ImportError as error:
        raise RefusedVersionError("APP_RUNTIME=tensorflow, but TensorFlow is not installed (extra: train)") from error
    return tf


def _load_tensorflow(folder: Path, threads: int) -> Runtime:
    tf = _import_tensorflow()
    # TF32 rounds float32 factors to 10 bits of mantissa, but the golden probabilities were computed in float32.
    tf.config.experimental.enable_tensor_float_32_execution(False)  # noqa: FBT003 -- TensorFlow's
    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        with contextlib.suppress(RuntimeError):  # fixed once the process has loaded a model
            tf.config.threading.set_intra_op_parallelism_threads(threads)
    try:
        loaded = tf.saved_model.load(folder)
        signature = loaded.signatures[SIGNATURE]
    except Exception as error:
        raise RefusedVersionError(f"TensorFlow can't load it: {' '.join(str(error).split())[:500]}") from error
    inputs = signature.structured_input_signature[1]
    outputs = signature.structured_outputs
    if len(inputs) != 1:
        raise RefusedVersionError(f"it has {len(inputs)} inputs, not one")
    (input_name,) = inputs
    output, typicality = _name_outputs(list(outputs))

    def predict(images: Images, _owner: object = loaded) -> Answers:  # the signature does not keep its variables alive
        answer = signature(**{input_name: tf.constant(images)})
        return Answers(answer[output].numpy(), answer[typicality].numpy() if typicality else None)

    return Runtime(
        "tensorflow",
        "f32",
        _describe_tensor("input", input_name, inputs[input_name]),
        _describe_tensor("output", output, outputs[output]),
        predict,
        typicality=_describe_tensor("typicality", typicality, outputs[typicality]) if typicality else None,
    )


def _describe_tensor(role: str, name: str, tensor: Any) -> TensorSpec:
    dimensions = [] if tensor.shape.rank is None else [d or 0 for d in tensor.shape]
    return _make_spec(role, name, tensor.dtype.name, dimensions)


def _make_spec(role: str, name: str, dtype: str, dimensions: list[int]) -> TensorSpec:
    """Describe one tensor; a dimension of 0 stands for a dynamic one."""
    if not dimensions or dimensions[0] != 0:
        raise RefusedVersionError(f"the {role}'s batch dimension is not dynamic: shape {tuple(dimensions)}")
    try:
        return TensorSpec.model_validate({"name": name, "dtype": dtype, "shape": tuple(dimensions[1:])})
    except ValueError as error:
        raise RefusedVersionError(f"the {role} is {dtype} {tuple(dimensions)} (0: dynamic)") from error
