"""Training compared with the article's code."""

import keras
import numpy as np
import pytest

from benchmarks import article, training
from tests.training.fitting import shrink_network
from tests.training.images import draw_split
from training.config import RECIPES

# Keras's legacy generator imports SciPy's functions by their old names.
pytestmark = pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def _short_and_small():
    with pytest.MonkeyPatch.context() as patch:
        shrink_network(patch)
        patch.setattr(article, "STAGES", ((8, 1), (16, 1)))
        patch.setattr(article, "BATCH_SIZE", 16)  # leaves a last batch of 6 (TensorFlow 2.21 aborts at one of 11)
        patch.setattr(training, "ROUNDS", 1)
        patch.setattr(training, "STEPS_PER_ROUND", 1)
        patch.setattr(training, "WARM_UP_STEPS", 1)
        patch.setattr(training, "INPUT_STEPS", 2)
        patch.setattr(training, "EVALUATE_EVERY", 3)
        patch.setattr(training, "ARTICLE_LIMIT", 1)
        recipe = RECIPES["fast"].model_copy(update={"optimizer": "sgd", "batch_size": 8, "validation": 0.1})
        patch.setattr(training, "RECIPES", {"fast": recipe})
        yield


def read_rows(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def test_both_tables_are_written(folder, tmp_path, monkeypatch, capsys):
    """Speed, and steps to a target that neither code reaches within its limit."""
    monkeypatch.setattr(keras.Model, "evaluate", lambda *_, **__: {"accuracy": 0.5})
    assert training.main(["--data", str(folder), "--target", "0.9", "--results", str(tmp_path)]) == 0
    text = (tmp_path / "training.md").read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    assert text.startswith("# Training\n\n`python -m benchmarks.training --data DIR --target 0.9`: ")
    assert text.count(" cores") == 1
    speed, target = text.split("From scratch")
    assert [row[0] for row in read_rows(speed)[2:]] == ["the article's code", "recipe fast"]
    (_, reached, steps), (ours, _, our_steps) = read_rows(target)[2:]
    assert reached.startswith("not reached (50.0 % after ")
    assert ours == "recipe fast on a schedule of 2 epochs"
    # 54 images to train: ceil(54 / 16) steps once, ceil(54 / 8) twice
    assert (steps, our_steps) == ("4", "14")


def test_a_target_is_reached_at_the_first_evaluation_above_it(monkeypatch):
    """The time includes training steps only."""
    accuracies = iter([0.3, 0.7, 0.9])
    monkeypatch.setattr(keras.Model, "evaluate", lambda *_, **__: {"accuracy": next(accuracies)})
    seconds, steps = training.time_to_target(make_fake(), draw_split(1, seed=0), 0.65)
    assert (seconds, steps) == ("0", "6")


def make_fake():
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
    normalize = article.normalize(draw_split(1, seed=0))[1]
    trainer = training.Trainer("fake", model, iter([]), iter([]), normalize, batch_size=4, limit=100)
    object.__setattr__(trainer, "step", lambda: None)
    return trainer


def test_images_per_second_use_each_codes_batch_size(monkeypatch):
    """Twice the images per step in the same time is twice as fast."""
    monkeypatch.setattr(training, "time_steps", lambda _step, count: [0.5] * count)
    article_code, ours = make_fake(), make_fake()
    object.__setattr__(ours, "title", "ours")
    object.__setattr__(ours, "batch_size", 8)
    rows = read_rows(training.compare_speed([article_code, ours]))[2:]
    assert rows == [["fake", "8", "1.00", "100.0 %"], ["ours", "16", "2.00", "100.0 %"]]


@pytest.mark.parametrize("target", ["0", "1", "65", "nan"])
def test_a_target_is_between_0_and_1(target, capsys):
    """Other values are refused in one line."""
    with pytest.raises(SystemExit) as exit_:
        training.main(["--target", target])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_missing_data_is_one_line(tmp_path, capsys):
    """With exit status 2."""
    assert training.main(["--data", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_article_normalizes_by_its_own_statistics():
    """One mean, and a standard deviation per pixel position; other images get the same statistics."""
    split = draw_split(4, seed=0)
    images, normalize = article.normalize(split)
    assert abs((images * normalize.deviation).mean()) < 1e-5
    np.testing.assert_allclose(images.std(axis=0), 1, atol=1e-3)
    np.testing.assert_allclose(normalize(split.images), images, atol=1e-4)
