"""Behaviour of benchmarks.own_classes, without training."""

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
    draw_images,
    draw_shapes,
    main,
    measure_calibration,
    read_data_set,
)
from tests.training.images import CLASSES, draw_split, write_folder
from training.folds import Folds


@pytest.fixture
def measured(monkeypatch):
    """Replace training: 90 % right with the recipe, 60 % from random weights. Returns what was to be measured."""
    asked = []

    def pretend(data, count, change, _start):
        asked.append((data.name, count, change))
        labels = draw_images(data, count).labels
        right = np.arange(len(labels)) % 10 < (6 if change == RANDOM_WEIGHTS else 9)
        answers = np.where(right, labels, (labels + 1) % (labels.max() + 1))
        return Cell(Folds(3.0 * np.eye(labels.max() + 1)[answers], labels, 3), 1.0)

    monkeypatch.setattr(benchmarks.own_classes, "measure", pretend)
    monkeypatch.setattr(benchmarks.own_classes, "load_start", lambda _: type("Start", (), {"name": "minimodel 3"}))
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
    """And differs from the recipe."""
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
    assert main([*flags, "--changes", "finetune", "epochs-16"]) == 0
    assert measured == [(GENERATED, 10, "epochs-16"), (GENERATED, 20, "epochs-16")]
    table = (tmp_path / "own-classes.md").read_text()
    assert table in capsys.readouterr().out
    assert f"| {GENERATED} ({', '.join(SHAPES)}) | 10 | 40 | 25.0 % | 60.0 % | 90.0 % | " in table
    assert "Mean gain: +30.0 points; smallest: +30.0." in table
    assert "| epochs-16 | `epochs` = 16 | 2 | 90.0 % | 90.0 % |" in table


def test_a_temperature_corrects_the_confidence():
    """Of a network that is always certain and right in four of five. It is fitted on other images."""
    labels = np.zeros(400, np.int64)
    logits = np.where((np.arange(400) % 5 > 0)[:, None], [8.0, 0.0], [0.0, 8.0])
    (confidence, error), (calibrated, served_error) = measure_calibration(Folds(logits, labels, 3))
    assert confidence > 0.99
    assert error == pytest.approx(0.2, abs=0.01)
    assert calibrated == pytest.approx(0.8, abs=0.05)
    assert served_error < 0.05
