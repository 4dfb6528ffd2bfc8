"""Loads and damages versions for tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.contract import INT8_FILE, ModelMetadata
from app.runtime.load import Runtime, load_runtime
from app.runtime.openvino import make_core
from app.versions.model import Model
from app.versions.verify import load_model
from tests.app.fakes import seal


def load_version(
    folder: Path, name: str = "openvino", precision: str = "f32", batch_sizes: Sequence[int] = (1, 4, 5)
) -> Model:
    def runtime(folder: Path, _: ModelMetadata) -> Runtime:
        return load_runtime(folder, name=name, precision=precision, threads=1)

    return load_model(folder, load_runtime=runtime, batch_sizes=batch_sizes)


def rewrite_golden(version: Path, **arrays: np.ndarray) -> None:
    """Change arrays of a version's golden images."""
    with np.load(version / "golden.npz") as golden:
        np.savez(version / "golden.npz", **{**golden, **arrays})
    seal(version)


def write_graph(version: Path, broadcast_mib: int) -> None:
    """Write a small int8 graph that gives the SavedModel's answers and compiles to `broadcast_mib` MiB.

    A constant of 4 bytes is broadcast and then indexed by the input's brightest value, so OpenVINO computes and keeps
    all of it when it compiles the graph.
    """
    import openvino as ov  # noqa: PLC0415 -- after app.runtime.openvino
    from openvino import opset13 as op  # noqa: PLC0415

    graph = make_core().read_model(version)
    images, answers = graph.inputs[0].get_node(), graph.outputs[0].get_node().input_value(0)
    broadcast = op.broadcast(op.constant(np.float32(1)), op.constant(np.array([256, broadcast_mib * 2**10])))
    brightest = op.reduce_max(op.convert(images, "i32"), op.constant(np.array([0, 1, 2, 3])), keep_dims=False)
    row = op.gather(broadcast, brightest, op.constant(np.int64(0)))
    one = op.reduce_max(row, op.constant(np.array([0])), keep_dims=False)
    result = op.multiply(answers, one)
    result.output(0).set_names(graph.outputs[0].names)
    (version / INT8_FILE).parent.mkdir(exist_ok=True)
    ov.save_model(ov.Model([result], [images], "broadcast"), version / INT8_FILE, compress_to_fp16=False)
    seal(version)
