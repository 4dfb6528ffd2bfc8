"""Behaviour of app.runtime with a version's quantized graph."""

import re
from pathlib import Path

import numpy as np
import pytest

from app.contract import GOLDEN_TOLERANCES, INT8_FILE, Metrics, RuntimeMetrics
from app.errors import RefusedVersionError
from app.runtime.load import MAX_GRAPH_BYTES
from app.settings import Settings
from app.versions.loader import make_loader
from tests.app.artifacts import load_version, rewrite_golden
from tests.app.fakes import INPUT, seal

AS_ACCURATE = Metrics(
    runtimes={"openvino f32": RuntimeMetrics(accuracy=0.9), "openvino int8": RuntimeMetrics(accuracy=0.9)}
)


@pytest.fixture
def quantized(version: Path) -> Path:
    """A version with a float32 graph in the place of a quantized one; the service can't see the difference."""
    import openvino  # noqa: PLC0415 -- after app.runtime.load

    openvino.save_model(openvino.Core().read_model(version), version / INT8_FILE, compress_to_fp16=False)
    seal(version, metrics=AS_ACCURATE)
    return version


def test_int8_is_the_quantized_graph(quantized):
    """It loads from its own two files, and its precision says so."""
    (quantized / "saved_model.pb").write_bytes(b"not read")
    seal(quantized)
    model = load_version(quantized, precision="int8")
    assert model.runtime.precision == "int8"
    white = np.full((1, *INPUT.shape), 255, dtype=np.uint8)
    np.testing.assert_allclose(model.predict(white).probabilities, 1 / 3, atol=1e-3)


@pytest.mark.parametrize(
    ("runtime", "flags", "precision"),
    [
        ("openvino", {"avx512_vnni"}, "int8"),
        ("openvino", set(), "f32|bf16|f16"),
        ("tensorflow", {"avx512_vnni"}, "f32"),
    ],
)
def test_auto_uses_int8_on_cpus_that_support_it(quantized, monkeypatch, runtime, flags, precision):
    """If the version has it."""
    monkeypatch.setattr("app.runtime.cpu.read_cpu_flags", lambda: flags)
    model = make_loader(Settings(runtime=runtime, precision="auto"), batch_sizes=[1, 2])(quantized)
    assert re.fullmatch(precision, model.runtime.precision)


def test_int8_of_a_version_that_was_not_quantized_is_refused(exported):
    """An operator who sets it expects its speed: the service does not fall back to something slower."""
    with pytest.raises(RefusedVersionError, match="APP_PRECISION=int8, but it was exported without --quantize"):
        make_loader(Settings(precision="int8"), batch_sizes=[1, 2])(exported)


def refuse_int8(version: Path, reason: str) -> None:
    seal(version)
    with pytest.raises(RefusedVersionError, match=reason):
        load_version(version, precision="int8")


@pytest.mark.parametrize("content", [b"", b"<net", b"<net/>"])
def test_a_broken_quantized_graph_is_refused(quantized, content):
    """Like a broken SavedModel."""
    (quantized / INT8_FILE).write_bytes(content)
    refuse_int8(quantized, "can't load it")


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
def test_half_a_quantized_graph_is_refused(quantized, name):
    """Even if the metadata names only the file that is left."""
    (quantized / "int8" / name).unlink()
    refuse_int8(quantized, "can't load it")


def test_a_quantized_graph_without_all_of_its_weights_is_refused(quantized):
    """Nothing beyond the file's end is read."""
    weights = quantized / "int8" / "model.bin"
    weights.write_bytes(weights.read_bytes()[:-4])
    refuse_int8(quantized, "can't load it")


def test_a_quantized_graph_that_fills_the_memory_is_refused(quantized):
    """Without reading it."""
    with (quantized / INT8_FILE).open("a") as file:
        file.truncate(MAX_GRAPH_BYTES + 1)
    refuse_int8(quantized, "int8/model.xml is larger than")


def test_a_quantized_graph_of_another_shape_is_refused(quantized):
    """Its signature is verified like the SavedModel's."""
    graph = (quantized / INT8_FILE).read_text()
    (quantized / INT8_FILE).write_text(graph.replace('shape="?,8,6,3"', 'shape="?,9,6,3"'))
    refuse_int8(quantized, "the graph has")


@pytest.mark.parametrize(("factor", "good"), [(0.9, True), (1.1, False)])
def test_golden_probabilities_are_compared_with_the_tolerance_of_int8(quantized, factor, good):
    """Rounding to 8 bits changes them a little; another model changes them more."""
    golden = load_version(quantized).predict(np.load(quantized / "golden.npz")["images"]).probabilities
    golden[0, 0] -= np.copysign(GOLDEN_TOLERANCES["int8"] * factor, golden[0, 0] - 0.5)
    rewrite_golden(quantized, probabilities=golden)
    if good:
        load_version(quantized, precision="int8")
    else:
        refuse_int8(quantized, "the tolerance of int8 is")


def test_a_loaded_graph_is_independent_of_its_files(quantized):
    """Overwriting a memory-mapped file would end the process (SIGBUS)."""
    model = load_version(quantized, precision="int8")
    maps = Path("/proc/self/maps").read_text()
    assert "model.bin" not in maps
    assert model.runtime.precision == "int8"
