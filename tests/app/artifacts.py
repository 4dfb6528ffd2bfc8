"""Versions as tests load and spoil them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.contract import ModelMetadata
from app.runtime.load import Runtime, load_runtime
from app.versions.model import Model, load_model
from tests.app.fakes import seal


def load_version(
    folder: Path, name: str = "openvino", precision: str = "f32", batch_sizes: Sequence[int] = (1, 4, 5)
) -> Model:
    def runtime(folder: Path, _: ModelMetadata) -> Runtime:
        return load_runtime(folder, name=name, precision=precision, threads=1)

    return load_model(folder, load_runtime=runtime, batch_sizes=batch_sizes)


def rewrite_golden(version: Path, **arrays: np.ndarray) -> None:
    with np.load(version / "golden.npz") as golden:
        arrays = {name: arrays.get(name, golden[name]) for name in ("images", "probabilities")}
    np.savez(version / "golden.npz", **arrays)
    seal(version)
