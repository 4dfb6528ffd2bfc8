"""Behaviour of training.checkpoint: runs that are interrupted and resumed."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.fitting import CPU, NORMALIZE, RECIPE, SGD, START, TRAIN, VALIDATION, fit, in_precision, list_epochs
from tests.training.images import draw_split
from training.checkpoint import Checkpoint, read_checkpoint
from training.data import Split
from training.failures import DivergedError, ResumeError
from training.optimizer import make_optimizer
from training.pipeline import make_dataset, steps_per_epoch
from training.run import CHECKPOINT_FILE, HISTORY_FILE, RECIPE_FILE, read_history, start_run
from training.train import train

pytestmark = pytest.mark.usefixtures("small_network")


NAN_DATASET = tf.data.Dataset.from_tensors((np.zeros((1, 32, 32, 3), np.float32), np.full((1, 3), np.nan)))


def test_a_resumed_run_equals_an_uninterrupted_one(whole, resumed):
    """In its weights, up to rounding, including dropout."""
    run, model, *_ = whole
    resumed, _ = resumed
    cut = run.with_name("cut")
    for ours, theirs in zip(resumed.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert int(resumed.optimizer.iterations) == int(model.optimizer.iterations) == 4
    # The second epoch was logged, but in no checkpoint, so it ran again and is logged once.
    assert list_epochs(cut) == ["0", "1"]


def test_an_epoch_in_the_checkpoint_is_in_the_history(whole):
    """A resumed run does not repeat it, so its row would never be written."""
    run = whole.run
    assert list_epochs(run.with_name("after")) == ["0"]


def test_resuming_a_finished_run_does_not_train(whole):
    """It returns the network, ready for export."""
    run, model, *_ = whole
    again = fit(run, resume=True)
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_resuming_with_another_recipe_is_refused(whole):
    """The message names each changed value."""
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
    """Whether pixels, labels or the number of images differ."""
    run = whole.run
    with pytest.raises(ResumeError, match=f"on other data: {words}"):
        train(train_split, VALIDATION, RECIPE, NORMALIZE, CPU, run, START, resume=True)


def test_resuming_without_a_checkpoint_is_refused(tmp_path):
    """A run that was interrupted in its first epoch has none."""
    start_run(tmp_path, RECIPE, {}, START)
    with pytest.raises(ResumeError, match=f"{tmp_path}/{CHECKPOINT_FILE} does not exist"):
        fit(tmp_path, resume=True)


@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(whole, tmp_path, share):
    """In one line, for example after an incomplete copy."""
    shutil.copytree(whole.run, tmp_path / "run")
    checkpoint = tmp_path / "run" / CHECKPOINT_FILE
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ResumeError, match=f"nothing to resume: {checkpoint} is damaged"):
        fit(tmp_path / "run", resume=True)


@pytest.mark.parametrize("damage", [b"", b"\xff", b"epoch,loss\n", b"epoch,loss\n0,1\n1,x\n", b"epoch,loss\n0,1\n1\n"])
def test_a_damaged_history_is_refused(whole, tmp_path, damage):
    """Before the remaining epochs, because the card needs it afterwards."""
    shutil.copytree(whole.run, tmp_path / "run")
    history = tmp_path / "run" / HISTORY_FILE
    history.write_bytes(damage)
    with pytest.raises(ResumeError, match=f"nothing to resume: {history} is damaged"):
        fit(tmp_path / "run", resume=True)


def test_resuming_in_another_precision_is_refused(whole):
    """Its checkpoint has other variables."""
    with pytest.raises(ResumeError, match="in another precision: precision was float32, now mixed_float16"):
        fit(whole.run, devices=in_precision("mixed_float16"), resume=True)


def test_a_run_in_float16_resumes_after_its_last_epoch(tmp_path, monkeypatch):
    """The optimizer does not count steps whose gradients overflow, so its steps don't give the number of epochs."""

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
    """Interrupted at each resolution, it ends like an uninterrupted run."""
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


def test_averaged_weights_are_validated_and_returned(tmp_path):
    """The checkpoint keeps both kinds of weights."""
    recipe = SGD.model_copy(update={"ema": 0.9, "epochs": 1})
    model = fit(tmp_path, recipe=recipe)
    held_out = make_dataset(VALIDATION, NORMALIZE, num_classes=3)
    loss = model.evaluate(held_out, verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(read_history(tmp_path)[-1]["val_loss"], rel=1e-5)
    _, saved = read_checkpoint(tmp_path / CHECKPOINT_FILE)
    assert (saved[0] != model.weights[0].numpy()).any()  # the weights that the next step would use


def test_a_run_from_before_a_new_field_resumes(whole, tmp_path):
    """The recipe gets the field's default."""
    run = tmp_path / "run"
    shutil.copytree(whole.run, run)
    recipe = json.loads((run / RECIPE_FILE).read_text())
    del recipe["jpeg"]
    (run / RECIPE_FILE).write_text(json.dumps(recipe))
    fit(run, resume=True)


def test_a_diverged_run_ends_and_keeps_its_last_good_epoch(tmp_path, monkeypatch):
    """It writes no checkpoint with values that are not finite."""
    monkeypatch.setattr("training.train.make_dataset", lambda *_, **__: NAN_DATASET)
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"the last good epoch")
    with pytest.raises(DivergedError, match="loss is no longer finite; lower --learning-rate"):
        fit(tmp_path, recipe=SGD)
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == b"the last good epoch"
    assert list_epochs(tmp_path) == ["0"]
