"""Behaviour of training.best_epoch."""

import keras
import numpy as np
import pytest

from tests.training.fitting import SGD, fit, list_epochs
from training.best_epoch import BestEpoch

pytestmark = pytest.mark.usefixtures("small_network")


def judge(monkeypatch, losses):
    """Replace the validation loss of each epoch by these."""
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
    """Its weights are the result, also of a resumed run. The run stops after `patience` epochs without a lower loss."""
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
