import contextlib
import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.conftest import START, draw_split, shrink_network
from training.best_epoch import BestEpoch
from training.checkpoint import Checkpoint, read_checkpoint
from training.config import Recipe
from training.data import Split
from training.devices import Devices
from training.failures import DivergedError, ResumeError
from training.layers import BatchNormalization
from training.network import mini_model
from training.optimizer import make_optimizer
from training.pipeline import make_dataset, measure_normalization, steps_per_epoch
from training.run import CHECKPOINT_FILE, HISTORY_FILE, RECIPE_FILE, read_history, start_run
from training.train import compile_network, train

CPU = Devices(tf.distribute.get_strategy(), "float32", jit_compile=False, description="CPU")
RECIPE = Recipe(epochs=2, batch_size=16, optimizer="muon", schedule="cosine", warmup=0.2, weight_decay=0.05)
SGD = RECIPE.model_copy(update={"optimizer": "sgd"})  # traced sooner than Muon
TRAIN, VALIDATION = draw_split(8, seed=0), draw_split(4, seed=1)
NORMALIZE = measure_normalization(TRAIN.images, "channel")
NAN_DATASET = tf.data.Dataset.from_tensors((np.zeros((1, 32, 32, 3), np.float32), np.full((1, 3), np.nan)))


@pytest.fixture(scope="module", autouse=True)
def _small_network():
    with pytest.MonkeyPatch.context() as patch:
        shrink_network(patch)
        yield


def fit(run, *, recipe=RECIPE, devices=CPU, resume=False):
    start = START.model_copy(update={"precision": devices.precision})
    return train(TRAIN, VALIDATION, recipe, NORMALIZE, devices, run, start, resume=resume)


def in_precision(precision):
    return Devices(tf.distribute.get_strategy(), precision, jit_compile=False, description="CPU")


class Terminal(io.StringIO):
    """What is printed on a terminal."""

    def isatty(self):
        return True


def list_epochs(run):
    with (run / HISTORY_FILE).open(newline="") as file:
        return [row["epoch"] for row in csv.DictReader(file)]


class Whole(NamedTuple):
    """A run of both epochs: its folder, the model, what was printed, how often the training step was traced."""

    run: Path
    model: keras.Model
    printed: str
    traces: int


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Run both epochs; beside it, what a power cut would have left before the second checkpoint and after the first."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finish_epoch = Checkpoint.on_epoch_end

    def keep_copies(self, epoch, logs=None):
        if epoch == 1:
            shutil.copytree(run, run.with_name("cut"))
        finish_epoch(self, epoch, logs)
        if epoch == 0:
            shutil.copytree(run, run.with_name("after"))

    traced = []
    train_step = keras.Model.train_step

    def count_traces(self, data):
        traced.append(self.name)
        return train_step(self, data)

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr(Checkpoint, "on_epoch_end", keep_copies)
        patch.setattr(keras.Model, "train_step", count_traces)
        model = fit(run)
    return Whole(run, model, printed.getvalue(), len(traced))


@pytest.fixture(scope="module")
def resumed(whole):
    """The model of the run that was cut in its second epoch, resumed on a terminal, and what was printed there."""
    cut = whole.run.with_name("cut")
    assert list_epochs(cut) == ["0", "1"]
    with contextlib.redirect_stdout(Terminal()) as terminal:
        model = fit(cut, resume=True)
    return model, terminal.getvalue()


def test_resumed_run_equals_an_uninterrupted_one(whole, resumed):
    """It ends with the same weights up to float noise, dropout included."""
    run, model, *_ = whole
    resumed, _ = resumed
    cut = run.with_name("cut")
    for ours, theirs in zip(resumed.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert int(resumed.optimizer.iterations) == int(model.optimizer.iterations) == 4
    # The second epoch had been logged, but was in no checkpoint: it came again, once.
    assert list_epochs(cut) == ["0", "1"]


def test_an_epoch_in_the_checkpoint_is_in_the_history(whole):
    """A resumed run does not go through it again, so its row would be missing for good."""
    run = whole.run
    assert list_epochs(run.with_name("after")) == ["0"]


def test_history_tells_pace_and_learning_rate(whole):
    """history.csv has a row an epoch, with what a person follows a run by; TensorBoard has its logs."""
    run = whole.run
    assert list_epochs(run) == ["0", "1"]
    row = read_history(run)[0]
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second"} <= row.keys()
    assert row["images_per_second"] > 0
    assert list(run.glob("tensorboard/*/*"))


def test_a_log_has_one_line_an_epoch(whole):
    """No bar, whose carriage returns and colours a file would keep: figures, pace and time left."""
    first, second = whole.printed.splitlines()
    figures = r"accuracy [\d.]+, loss [\d.]+, val_accuracy [\d.]+, val_loss [\d.]+, [\d,]+ images/s"
    assert re.fullmatch(rf"epoch 1/2: {figures}, learning rate [\d.e-]+, about \d+ seconds left", first)
    assert re.fullmatch(rf"epoch 2/2: {figures}, learning rate 0, about 0 seconds left", second)


def test_a_person_can_read_how_it_goes(resumed):
    """On a terminal Keras's bar with its own figures; pace, learning rate and time left in words, not in its format."""
    _, printed = resumed
    assert re.findall(r"Epoch \d/2", printed) == ["Epoch 2/2"]
    assert "val_accuracy: " in printed
    assert "learning_rate:" not in printed
    assert re.search(r"^[\d,]+ images/s, learning rate 0, about 0 seconds left\n\Z", printed, re.MULTILINE)


def test_the_training_step_is_traced_once(whole):
    """Tracing takes seconds of a run's start."""
    assert whole.traces == 1


def test_resuming_a_finished_run_trains_no_more(whole):
    """A run whose last epoch is done comes back as it is, ready for export."""
    run, model, *_ = whole
    again = fit(run, resume=True)
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_resuming_with_another_recipe_is_refused(whole):
    """The message names each value that changed."""
    run = whole.run
    other = RECIPE.model_copy(update={"epochs": 9})
    with pytest.raises(ResumeError, match="by another recipe: epochs was 2, now 9"):
        fit(run, recipe=other, resume=True)


@pytest.mark.parametrize(
    ("train_split", "words"),
    [
        (Split(TRAIN.images ^ 1, TRAIN.labels), "sha256 was"),
        (Split(TRAIN.images, TRAIN.labels[::-1]), "sha256 was"),
        (draw_split(9, seed=0), "train_size was 24, now 27"),
    ],
    ids=["pixels", "labels", "size"],
)
def test_resuming_on_other_data_is_refused(whole, train_split, words):
    """Weights of one data set are not gone on with on another."""
    run = whole.run
    with pytest.raises(ResumeError, match=f"on other data: {words}"):
        train(train_split, VALIDATION, RECIPE, NORMALIZE, CPU, run, START, resume=True)


def test_resuming_nothing_says_where_it_looked(tmp_path):
    """A run that was cut in its first epoch can't be resumed."""
    start_run(tmp_path, RECIPE, {}, START)
    with pytest.raises(ResumeError, match=f"{tmp_path}/{CHECKPOINT_FILE} does not exist"):
        fit(tmp_path, resume=True)


@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_resuming_from_a_cut_checkpoint_is_refused_in_a_line(whole, tmp_path, share):
    """What a copy over a network leaves when it breaks off."""
    shutil.copytree(whole.run, tmp_path / "run")
    checkpoint = tmp_path / "run" / CHECKPOINT_FILE
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ResumeError, match=f"nothing to resume: {checkpoint} is damaged"):
        fit(tmp_path / "run", resume=True)


@pytest.mark.parametrize("damage", [b"", b"\xff", b"epoch,loss\n", b"epoch,loss\n0,1\n1,x\n", b"epoch,loss\n0,1\n1\n"])
def test_resuming_by_a_damaged_history_is_refused_in_a_line(whole, tmp_path, damage):
    """Before the epochs that are left, not after them when the card is drawn."""
    shutil.copytree(whole.run, tmp_path / "run")
    history = tmp_path / "run" / HISTORY_FILE
    history.write_bytes(damage)
    with pytest.raises(ResumeError, match=f"nothing to resume: {history} is damaged"):
        fit(tmp_path / "run", resume=True)


def test_resuming_in_another_precision_is_refused(whole):
    """Its checkpoint has other variables, and its noise is another."""
    with pytest.raises(ResumeError, match="in another precision: precision was float32, now mixed_float16"):
        fit(whole.run, devices=in_precision("mixed_float16"), resume=True)


def test_a_run_in_float16_resumes_after_its_last_epoch(tmp_path, monkeypatch):
    """Steps whose gradients overflow are skipped and not counted: they do not tell how many epochs were finished."""

    def overflow_at_first(recipe, steps):
        return keras.optimizers.LossScaleOptimizer(make_optimizer(recipe, steps), initial_scale=2.0**20)

    monkeypatch.setattr("training.train.make_optimizer", overflow_at_first)
    finish_epoch = Checkpoint.on_epoch_end

    def keep_first(self, epoch, logs=None):
        finish_epoch(self, epoch, logs)
        if epoch == 0:
            shutil.copytree(tmp_path / "whole", tmp_path / "cut")

    monkeypatch.setattr(Checkpoint, "on_epoch_end", keep_first)
    devices = in_precision("mixed_float16")
    whole = fit(tmp_path / "whole", recipe=SGD, devices=devices)
    resumed = fit(tmp_path / "cut", recipe=SGD, devices=devices, resume=True)
    for model in (whole, resumed):
        assert 0 < int(model.optimizer.iterations) < SGD.epochs * steps_per_epoch(len(TRAIN.labels), SGD)
    assert list_epochs(tmp_path / "cut") == ["0", "1"]
    for ours, theirs in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_a_run_of_two_resolutions_with_averaged_weights_resumes_in_each(tmp_path, monkeypatch):
    """Cut among its small images, and again among its whole ones, it ends as an uninterrupted run does."""
    values = {"epochs": 4, "low_resolution": 0.5, "ema": 0.8, "jpeg": 0.5, "plain": 0.5, "alternating_flip": True}
    recipe = SGD.model_copy(update=values)
    finish_epoch = Checkpoint.on_epoch_end

    def keep_copies(self, epoch, logs=None):
        finish_epoch(self, epoch, logs)
        if epoch in {0, 2} and self.path.parent.name == "whole":
            shutil.copytree(tmp_path / "whole", tmp_path / f"cut-{epoch}")

    monkeypatch.setattr(Checkpoint, "on_epoch_end", keep_copies)
    whole = fit(tmp_path / "whole", recipe=recipe)
    assert whole.input_shape == (None, 32, 32, 3)
    for run in (tmp_path / "cut-0", tmp_path / "cut-2"):
        resumed = fit(run, recipe=recipe, resume=True)
        for ours, theirs in zip(resumed.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
        assert list_epochs(run) == ["0", "1", "2", "3"]
    finished = fit(tmp_path / "whole", recipe=recipe, resume=True)
    for ours, theirs in zip(finished.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_averaged_weights_are_judged_and_returned(tmp_path):
    """The checkpoint keeps both; the validation figures are those of the network that comes back."""
    recipe = SGD.model_copy(update={"ema": 0.9, "epochs": 1})
    model = fit(tmp_path, recipe=recipe)
    held_out = make_dataset(VALIDATION, NORMALIZE, num_classes=3)
    loss = model.evaluate(held_out, verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(read_history(tmp_path)[-1]["val_loss"], rel=1e-5)
    _, saved = read_checkpoint(tmp_path / CHECKPOINT_FILE)
    assert (saved[0] != model.weights[0].numpy()).any()  # the weights that the next step would start from


def test_a_run_from_before_a_field_existed_resumes(whole, tmp_path):
    """A recipe without it was one with the field's default."""
    run = tmp_path / "run"
    shutil.copytree(whole.run, run)
    recipe = json.loads((run / RECIPE_FILE).read_text())
    del recipe["jpeg"]
    (run / RECIPE_FILE).write_text(json.dumps(recipe))
    fit(run, resume=True)


def test_a_diverged_run_ends_and_keeps_its_last_good_epoch(tmp_path, monkeypatch):
    """What is not finite replaces no checkpoint, and no further epoch is begun."""
    monkeypatch.setattr("training.train.make_dataset", lambda *_, **__: NAN_DATASET)
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"the last good epoch")
    with pytest.raises(DivergedError, match="loss is no longer finite; lower --learning-rate"):
        fit(tmp_path, recipe=SGD)
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == b"the last good epoch"
    assert list_epochs(tmp_path) == ["0"]


def test_the_recipes_seed_is_that_of_the_first_weights(tmp_path, monkeypatch):
    """The same seed draws the same, another draws others."""
    drawn = []

    def draw(*_):
        drawn.append(float(keras.random.normal(())))
        raise KeyboardInterrupt

    monkeypatch.setattr("training.train.compile_network", draw)
    for seed in (0, 0, 1):
        with contextlib.suppress(KeyboardInterrupt):
            fit(tmp_path, recipe=RECIPE.model_copy(update={"seed": seed}))
    assert drawn[0] == drawn[1] != drawn[2]


def test_labels_are_smoothed_as_the_recipe_says():
    """The loss of the compiled network is the cross-entropy with a share of the probability spread over all classes."""
    recipe = RECIPE.model_copy(update={"label_smoothing": 0.2})
    network = compile_network(4, recipe, CPU, total_steps=1)
    answer = np.array([[0.7, 0.1, 0.1, 0.1]])
    loss = network.compute_loss(y=np.array([[1.0, 0, 0, 0]]), y_pred=answer)
    assert float(loss) == pytest.approx(-float(np.log(answer[0]) @ [0.85, 0.05, 0.05, 0.05]), rel=1e-5)


@pytest.mark.parametrize(("steps", "momentum"), [(1, 0.5), (4, 0.5), (48, 0.79), (1000, 0.99), (8928, 0.99)])
def test_averages_keep_nothing_of_where_they_began(steps, momentum):
    """Batch normalization's moving averages at the end of a run, however short, are those of images."""
    network = compile_network(3, RECIPE, CPU, total_steps=steps)
    layers = [layer for layer in network.layers if isinstance(layer, BatchNormalization)]
    assert [layer.momentum for layer in layers] == pytest.approx([momentum] * 5, abs=0.01)


def test_mixed_precision_trains_to_float32_probabilities(tmp_path):
    """In bfloat16 the weights stay float32 and so do the probabilities."""
    recipe = SGD.model_copy(update={"epochs": 1})
    model = fit(tmp_path, recipe=recipe, devices=in_precision("mixed_bfloat16"))
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert model.output.dtype == "float32"
    assert model.get_layer("stem").compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "mixed_bfloat16"


def judge(monkeypatch, losses):
    """Let validation give these losses, epoch by epoch."""
    evaluate = keras.Model.evaluate
    coming = iter(losses)

    def pretend(self, *arguments, callbacks, **options):
        logs = evaluate(self, *arguments, callbacks=[], **options)
        callbacks.on_test_begin()
        logs = {**logs, "loss": next(coming)}
        callbacks.on_test_end(logs)
        return logs

    monkeypatch.setattr(keras.Model, "evaluate", pretend)


def test_the_epoch_with_the_lowest_validation_loss_is_kept(tmp_path, monkeypatch):
    """Its weights are the result, and the run ends when it has not been beaten for a while; resumed, it stays so."""
    kept = []
    keep = BestEpoch.on_epoch_end

    def note_weights(self, epoch, logs=None):
        kept.append(self.model.get_weights()[0])
        keep(self, epoch, logs)

    monkeypatch.setattr(BestEpoch, "on_epoch_end", note_weights)
    judge(monkeypatch, [3.0, 1.0, 2.0, 2.5, 0.1])
    recipe = SGD.model_copy(update={"epochs": 5, "patience": 2})
    model = fit(tmp_path / "run", recipe=recipe)
    assert list_epochs(tmp_path / "run") == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(model.get_weights()[0], kept[1])
    again = fit(tmp_path / "run", recipe=recipe, resume=True)
    assert len(kept) == 4
    np.testing.assert_array_equal(again.get_weights()[0], kept[1])


def test_a_network_starts_from_the_given_weights(tmp_path, monkeypatch):
    """Not from random ones."""
    weights = [weight + 1 for weight in mini_model(num_classes=3).get_weights()]
    started = []
    monkeypatch.setattr(keras.Model, "fit", lambda self, *_, **__: started.append(self.get_weights()))
    train(TRAIN, VALIDATION, SGD, NORMALIZE, CPU, tmp_path, START, weights=weights)
    for ours, theirs in zip(started[0], weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
