"""Behaviour of benchmarks.own_classes, without training."""

import keras
import numpy as np
import pytest

import benchmarks.own_classes
from benchmarks.own_classes import (
    CHANGES,
    GENERATED,
    RANDOM_WEIGHTS,
    SHAPES,
    Cell,
    change_recipe,
    compile_slow_body,
    draw_images,
    draw_shapes,
    main,
    make_random_head,
    measure_calibration,
    read_data_set,
)
from tests.training.images import CLASSES, draw_split, write_folder
from training.devices import select_devices
from training.folds import Folds
from training.train import compile_network


@pytest.fixture
def measured(monkeypatch):
    """Replace training: 90 % right with the recipe, 60 % from random weights. Returns what was to be measured."""
    asked = []

    def pretend(data, count, change, _start):
        asked.append((data.name, count, change))
        assert data.split.images.shape[1] == change_recipe(change).size
        labels = draw_images(data, count).labels
        right = np.arange(len(labels)) % 10 < (6 if change == RANDOM_WEIGHTS else 9)
        answers = np.where(right, labels, (labels + 1) % (labels.max() + 1))
        return Cell(Folds(3.0 * np.eye(labels.max() + 1)[answers], labels, 3), 1.0)

    monkeypatch.setattr(benchmarks.own_classes, "measure", pretend)
    monkeypatch.setattr(
        benchmarks.own_classes, "load_start", lambda folder: type("Start", (), {"name": f"minimodel {folder}"})
    )
    return asked


def test_generated_shapes_are_reproducible():
    """Images of each kind, no two of them equal."""
    data = draw_shapes(3)
    assert data.class_names == SHAPES
    assert data.split.images.shape == (12, 32, 32, 3)
    assert len({image.tobytes() for image in data.split.images}) == 12
    np.testing.assert_array_equal(draw_shapes(3).split.images, data.split.images)


def test_images_are_drawn_by_class(tmp_path):
    """The given number of each, or all, from all splits of the folder."""
    for split, count in (("train", 4), ("test", 2)):
        write_folder(tmp_path / split, draw_split(count, count), "png")
    data = read_data_set(tmp_path)
    assert data.class_names == CLASSES
    assert np.bincount(draw_images(data, 5).labels).tolist() == [5, 5, 5]
    assert np.bincount(draw_images(data, 9).labels).tolist() == [6, 6, 6]


def test_every_change_is_a_valid_recipe():
    """And differs from the recipe, unless it changes something else."""
    for change, values in CHANGES.items():
        recipe = change_recipe(change)
        assert all(getattr(recipe, field) == value for field, value in values.items())
        assert (recipe != change_recipe("finetune")) == bool(values)


def test_the_tables_have_gain_and_calibration(measured, tmp_path, capsys):
    """From this session and from earlier ones, which are not repeated."""
    flags = ["--counts", "10", "20", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
    assert main(flags) == 0
    assert sorted(measured) == sorted(
        [(GENERATED, count, change) for count in (10, 20) for change in ("finetune", RANDOM_WEIGHTS)]
    )
    measured.clear()
    assert main([*flags, "--changes", "finetune", "epochs-16", "size-48", "slow-body"]) == 0
    changes = ("epochs-16", "size-48", "slow-body")
    assert measured == [(GENERATED, count, change) for count in (10, 20) for change in changes]
    table = (tmp_path / "own-classes.md").read_text()
    assert table in capsys.readouterr().out
    assert f"| {GENERATED} ({', '.join(SHAPES)}) | 10 | 40 | 25.0 % | 60.0 % | 90.0 % | " in table
    assert "Mean gain: +30.0 points; smallest: +30.0." in table
    assert f"| change | values | {GENERATED}, 10 | {GENERATED}, 20 | mean difference |" in table
    assert "| finetune | as it is | 90.0 % | 90.0 % |  |" in table
    assert "| epochs-16 | `epochs` = 16 | 90.0 % | 90.0 % | +0.0 |" in table
    assert "| slow-body | all layers but the head learn at a third of the rate | 90.0 % | 90.0 % | +0.0 |" in table
    assert "random-head" not in table


def test_cells_of_another_version_or_recipe_are_measured_again(measured, monkeypatch, tmp_path):
    """Random weights depend on no version."""
    flags = ["--counts", "10", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
    assert main([*flags, "--from", "3"]) == 0
    measured.clear()
    assert main([*flags, "--from", "4"]) == 0
    assert measured == [(GENERATED, 10, "finetune")]
    measured.clear()
    recipe = change_recipe("finetune").model_copy(update={"epochs": 9})
    monkeypatch.setitem(benchmarks.own_classes.RECIPES, "finetune", recipe)
    assert main([*flags, "--from", "4"]) == 0
    assert len(measured) == 2


def test_a_slow_body_learns_at_a_third_of_the_rate():
    """The head learns at the whole rate."""
    recipe = change_recipe("slow-body").model_copy(update={"optimizer": "sgd", "schedule": "constant", "warmup": 0.0})
    steps = []
    for build in (compile_network, compile_slow_body):
        keras.utils.set_random_seed(0)
        model = build(3, recipe, select_devices(), 10)
        before = [weights.numpy() for weights in model.trainable_variables]
        gradients = [np.ones(variable.shape, np.float32) for variable in model.trainable_variables]
        model.optimizer.apply(gradients, model.trainable_variables)
        steps.append([old - new.numpy() for old, new in zip(before, model.trainable_variables, strict=True)])
    for variable, whole, slow in zip(model.trainable_variables, *steps, strict=True):
        rate = 1 if "head" in variable.path else 1 / 3
        np.testing.assert_allclose(slow, rate * whole, rtol=1e-3)


def test_a_random_head_replaces_the_regression(monkeypatch):
    """All other weights stay those of the version."""
    regression = [np.ones((4, 4), np.float32), np.ones((4, 2), np.float32), np.ones(2, np.float32)]
    monkeypatch.setattr(benchmarks.own_classes, "make_initial_weights", lambda *_: regression)
    body, kernel, bias = make_random_head(None, None, change_recipe("random-head"), ["dots", "rings"])
    assert (body == 1).all()
    assert (kernel != 1).all()
    assert np.abs(kernel).max() <= 1
    assert not bias.any()


def test_a_temperature_corrects_the_confidence():
    """Of a network that is always certain and right in four of five. It is fitted on other images."""
    labels = np.zeros(400, np.int64)
    logits = np.where((np.arange(400) % 5 > 0)[:, None], [8.0, 0.0], [0.0, 8.0])
    (confidence, error), (calibrated, served_error) = measure_calibration(Folds(logits, labels, 3))
    assert confidence > 0.99
    assert error == pytest.approx(0.2, abs=0.01)
    assert calibrated == pytest.approx(0.8, abs=0.05)
    assert served_error < 0.05
