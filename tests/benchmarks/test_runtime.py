"""The runtime's table."""

from pathlib import Path

import pytest

from app.runtime import Runtime
from benchmarks import runtime
from tests.app.fakes import INPUT, OUTPUT, tell_colours


def test_a_row_tells_images_a_second_and_a_batch_s_time():
    text = runtime.render({"fast": {1: 2.0, 8: 8.0, 32: 16.0}}, {"slow": "it is missing"}).splitlines()
    assert text[2] == "| fast | 500 (2.00 ms) | 1000 (8.00 ms) | 2000 (16.00 ms) |"
    assert text[3] == "| slow | – | – | – |"
    assert text[-1] == "- slow: it is missing"


def test_every_batch_size_is_measured():
    sizes = []

    def predict(images):
        sizes.append(len(images))
        return tell_colours(images)

    times = runtime.measure({"fake": Runtime("fake", "f32", INPUT, OUTPUT, predict)}, seconds=0, rounds=2)
    assert times.keys() == {"fake"}
    assert times["fake"].keys() == set(sizes) == set(runtime.BATCH_SIZES)
    assert all(value > 0 for value in times["fake"].values())


@pytest.mark.parametrize("native", [False, True])
def test_bf16_is_left_out_where_it_would_be_emulated(monkeypatch, native):
    asked = []
    monkeypatch.setattr(runtime, "has_bf16", lambda: native)
    monkeypatch.setattr(runtime, "load_runtime", lambda _, precision, **__: asked.append(precision))
    _, left_out = runtime.load_candidates(Path())
    assert ("bf16" in asked) is native
    assert any("emulated" in reason for reason in left_out.values()) is not native
