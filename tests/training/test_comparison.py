"""Which figures of a version are compared with its metadata."""

import copy
import json

import pytest

from app.contract import METADATA_FILE
from training.comparison import compare
from training.evaluation import Evaluation

NAMES = [
    ("accuracy",),
    ("accuracy_interval", 0),
    ("top2_accuracy",),
    ("negative_log_likelihood",),
    ("calibration_error",),
    ("calibration_error_before_temperature",),
    ("calibration_error_uncalibrated",),
    ("per_class_accuracy", "disc"),
    ("confusion", 1, 2),
    ("runtimes", "openvino f32", "accuracy"),
    ("runtimes", "openvino f32", "negative_log_likelihood"),
    ("runtimes", "openvino f32", "calibration_error"),
    ("runtimes", "tensorflow f32", "agreement"),
    ("robustness", "grey"),
    ("same_label_enlarged",),
]


@pytest.fixture
def recorded(version) -> dict:
    return json.loads((version / METADATA_FILE).read_text())["metrics"]


@pytest.fixture
def measured(recorded) -> Evaluation:
    return Evaluation.model_validate(recorded)


def change(figures, path, by):
    """Return nested figures with one changed by `by`, or removed."""
    changed = copy.deepcopy(figures)
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    if by is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] += by
    return changed


@pytest.mark.parametrize("path", NAMES, ids=lambda path: "-".join(map(str, path)))
def test_every_figure_is_compared(measured, recorded, path):
    """A changed or removed figure is reported with both values, and no other."""
    by = 3 if path[0] == "confusion" else 0.3 if path[0] == "per_class_accuracy" else 0.1
    (difference,) = compare(measured, change(recorded, path, by))
    assert difference.name == ", ".join(map(str, path))
    assert compare(measured, change(recorded, path, None))


def test_every_figure_is_in_the_list_above(recorded):
    """So that new figures are tested too."""
    assert {path[0] for path in NAMES} == recorded.keys() - {"test_sets", "foreign"}


@pytest.mark.parametrize("side", ["measured", "recorded"])
def test_images_from_other_sources_may_be_missing(measured, recorded, side):
    """Not everybody has them. If both sides do, they are compared."""
    assert recorded["test_sets"]["again"]["accuracy"] == recorded["accuracy"]
    assert 0 <= recorded["foreign"]["noise"]["typicality_auroc"] <= 1
    without = measured.model_copy(update={"test_sets": {}, "foreign": {}})
    pair = (without, recorded) if side == "measured" else (measured, without.model_dump(mode="json"))
    assert compare(*pair) == []
    other = change(recorded, ("foreign", "noise", "typicality_auroc"), -0.2)
    assert [difference.name for difference in compare(measured, other)] == ["foreign, noise, typicality_auroc"]


def test_a_figure_that_was_not_measured_is_a_difference(measured, recorded):
    """For example of a runtime whose file the version lacks."""
    recorded["runtimes"]["openvino int8"] = recorded["runtimes"]["openvino f32"]
    assert {d.measured for d in compare(measured, recorded)} == {None}
    assert len(compare(measured, recorded)) == 5


@pytest.mark.parametrize("side", ["measured", "recorded"])
def test_bfloat16_may_be_missing(recorded, side):
    """Not every CPU supports it. If both sides do, it is compared."""
    with_bf16 = copy.deepcopy(recorded)
    with_bf16["runtimes"]["openvino bf16"] = dict(recorded["runtimes"]["openvino f32"])
    without = copy.deepcopy(recorded)
    without["runtimes"].pop("openvino bf16", None)
    pair = (without, with_bf16) if side == "measured" else (with_bf16, without)
    assert compare(Evaluation.model_validate(pair[0]), pair[1]) == []
    other = change(with_bf16, ("runtimes", "openvino bf16", "agreement"), -0.2)
    assert len(compare(Evaluation.model_validate(with_bf16), other)) == 1


@pytest.mark.parametrize(("images", "agree"), [(2, True), (3, False)])
def test_two_images_may_differ(measured, recorded, images, agree):
    """Between CPUs; of 24 images, these are more than the 0.2 points that are allowed otherwise."""
    assert (compare(measured, change(recorded, ("accuracy",), images / 24 - 1e-9)) == []) is agree


@pytest.mark.parametrize(("points", "agree"), [(0.001, True), (0.003, False)])
def test_a_small_share_of_many_images_may_differ(recorded, points, agree):
    """Up to 0.2 points."""
    many = {**recorded, "confusion": [[4000, 0, 0], [0, 3000, 0], [0, 0, 3000]]}
    many_measured = Evaluation.model_validate(many)
    assert (compare(many_measured, change(many, ("accuracy",), points)) == []) is agree
