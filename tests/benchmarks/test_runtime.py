"""The runtimes' table."""

import threading
import time
from pathlib import Path

import pytest

from app.runtime.load import Runtime
from benchmarks import runtime
from benchmarks.runtime import Contender, Pace
from tests.app.fakes import INPUT, OUTPUT, tell_colours


def test_a_row_has_images_per_second_and_the_time_of_a_batch():
    """For each batch size."""
    paces = {1: Pace(500, 2), 8: Pace(1000, 8), 32: Pace(2000, 16)}
    text = runtime.render({"fast": paces}, {"slow": "it is missing"}).splitlines()
    assert text[2] == "| fast | 500 (2.00 ms) | 1000 (8.00 ms) | 2000 (16.00 ms) |"
    assert text[3] == "| slow | – | – | – |"
    assert text[-1] == "- slow: it is missing"


def make_contender(predict, callers=1):
    return Contender(Runtime("fake", "f32", INPUT, OUTPUT, predict), callers)


def test_every_batch_size_is_measured():
    """And the time of a batch follows from the rate."""
    sizes = []

    def predict(images):
        sizes.append(len(images))
        return tell_colours(images)

    paces = runtime.measure({"fake": make_contender(predict)}, seconds=0, rounds=2)
    assert paces.keys() == {"fake"}
    assert paces["fake"].keys() == set(sizes) == set(runtime.BATCH_SIZES)
    assert all(
        pace.per_second == pytest.approx(1000 * size / pace.milliseconds) for size, pace in paces["fake"].items()
    )


def test_the_callers_run_at_the_same_time():
    """The rate is that of all callers together."""
    together = threading.Barrier(3)
    runs = runtime.time_runs(lambda: together.wait(10), seconds=0, callers=3)
    assert len(runs) == 3
    contender = make_contender(lambda images: (time.sleep(0.05), tell_colours(images))[1], callers=3)
    pace = runtime.measure({"fake": contender}, seconds=0, rounds=1)["fake"][8]
    assert pace.milliseconds >= 50
    assert pace.per_second == pytest.approx(3 * 1000 * 8 / pace.milliseconds)


@pytest.mark.parametrize("native", [False, True])
def test_bf16_is_left_out_on_cpus_without_it(monkeypatch, native):
    """It would be emulated."""
    asked = []
    monkeypatch.setattr(runtime, "has_bf16", lambda: native)
    monkeypatch.setattr(runtime, "load_runtime", lambda _, precision, **__: asked.append(precision))
    _, left_out = runtime.load_candidates(Path())
    assert ("bf16" in asked) is native
    assert any("emulated" in reason for reason in left_out.values()) is not native
