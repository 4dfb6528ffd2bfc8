"""Behaviour of app.runtime.precision."""

import pytest

from app.contract import INT8_FILE, Metrics
from app.errors import RefusedVersionError
from app.runtime.precision import choose_precision
from tests.app.fakes import make_metadata

ACCURACIES = {"openvino f32": 0.907, "openvino bf16": 0.9074, "openvino int8": 0.905}


def describe(accuracies=ACCURACIES, files=(INT8_FILE,)):
    """Make the metadata of a version with these accuracies and files."""
    metrics = Metrics.model_validate({"runtimes": {name: {"accuracy": value} for name, value in accuracies.items()}})
    return make_metadata(files=dict.fromkeys(("saved_model.pb", *files), "0" * 64)).model_copy(
        update={"metrics": metrics}
    )


@pytest.fixture(autouse=True)
def _made_for_int8(monkeypatch):
    monkeypatch.setattr("app.runtime.cpu.read_cpu_flags", lambda: {"sse", "avx512_vnni"})


def test_auto_uses_int8_if_it_loses_little_accuracy():
    """A loss of exactly 0.2 points is allowed."""
    assert choose_precision("auto", describe()) == "int8"


@pytest.mark.parametrize(
    "metadata",
    [
        describe({**ACCURACIES, "openvino int8": 0.9049}),
        describe({"openvino f32": 0.907}),
        describe({"openvino int8": 0.907}),
        describe({}),
        describe(files=()),
    ],
    ids=["loses more", "not measured", "nothing to compare with", "no figures", "not quantized"],
)
def test_auto_ignores_int8_that_loses_accuracy(metadata):
    """Or whose accuracy was not measured. OpenVINO chooses instead."""
    assert choose_precision("auto", metadata) == "auto"


@pytest.mark.parametrize("flags", [set(), {"avx2"}, {"avx512f", "avx512bw", "avx512_bf16"}])
def test_auto_ignores_int8_on_cpus_without_support(monkeypatch, flags):
    """Its sums could overflow, and lower the measured accuracy."""
    monkeypatch.setattr("app.runtime.cpu.read_cpu_flags", lambda: flags)
    assert choose_precision("auto", describe()) == "auto"


@pytest.mark.parametrize("asked", ["f32", "bf16", "f16", "int8"])
def test_an_explicit_precision_is_used(monkeypatch, asked):
    """On any CPU, at any accuracy."""
    monkeypatch.setattr("app.runtime.cpu.read_cpu_flags", set)
    assert choose_precision(asked, describe({})) == asked


def test_int8_needs_a_quantized_version():
    """The reason says how to make one."""
    with pytest.raises(RefusedVersionError, match="without --quantize"):
        choose_precision("int8", describe(files=()))
