"""The figures of an evaluation."""

import json

import keras
import numpy as np
import pytest
from scipy.special import softmax

from app.contract import METADATA_FILE
from training.calibration import measure_calibration_error, undo_smoothing
from training.config import Recipe
from training.data import load_data, split_validation
from training.evaluation import Evaluation, load_network
from training.export import predict_logits
from training.network import mini_model
from training.pipeline import measure_normalization
from training.run import BEST_FILE


@pytest.fixture(scope="module")
def metadata(version) -> dict:
    return json.loads((version / METADATA_FILE).read_text())


@pytest.fixture(scope="module")
def recorded(metadata) -> Evaluation:
    return Evaluation.model_validate(metadata["metrics"])


def test_figures_agree_with_each_other(recorded):
    """Accuracy follows from the confusion matrix, lies in its interval, and is the mean of equally large classes."""
    confusion = np.array(recorded.confusion)
    assert confusion.sum() == 24
    assert recorded.accuracy == pytest.approx(confusion.trace() / 24)
    assert recorded.accuracy == pytest.approx(np.mean(list(recorded.per_class_accuracy.values())))
    assert recorded.accuracy <= recorded.top2_accuracy <= 1


def test_the_interval_is_wilsons(recorded):
    """By its formula (E. B. Wilson, 1927): the accuracies within 1.96 standard deviations of the measured one."""
    measured, square = recorded.accuracy, 1.959964**2 / 24
    middle, half = measured + square / 2, np.sqrt(square * (measured * (1 - measured) + square / 4))
    assert recorded.accuracy_interval == pytest.approx(((middle - half) / (1 + square), (middle + half) / (1 + square)))


def test_every_runtime_that_serves_is_measured(recorded):
    """TensorFlow and OpenVINO give every image the same label in float32."""
    assert recorded.runtimes["openvino f32"].agreement == 1
    assert recorded.runtimes["openvino f32"].accuracy == recorded.runtimes["tensorflow f32"].accuracy


@pytest.fixture(scope="module")
def logits(job, metadata, image_folder):
    """Keras's logits for the test images, from the weights of the run's best epoch."""
    recipe = Recipe(**metadata["recipe"])
    data = load_data(str(image_folder))
    train_split, _ = split_validation(data.train, recipe.validation, recipe.seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.network.STAGES", ((32, 1), (64, 1), (128, 1), (256, 1)))
        network = mini_model(num_classes=3, dropout=recipe.dropout)
    (best,) = job.glob(f"runs/*/{BEST_FILE}")
    with np.load(best) as saved:
        for index, variable in enumerate(network.weights):
            variable.assign(saved[f"arr_{index}"])
    normalize = measure_normalization(train_split.images, recipe.normalization)
    return predict_logits(network, normalize, data.test.images)


def test_calibration_errors_follow_from_keras_logits(logits, metadata, recorded, image_folder):
    """Uncalibrated, without label smoothing, and with the temperature."""
    labels = load_data(str(image_folder)).test.labels
    plain = keras.ops.convert_to_numpy(undo_smoothing(logits, metadata["smoothing"]))
    for probabilities, error in (
        (softmax(logits, axis=1), recorded.calibration_error_uncalibrated),
        (softmax(plain, axis=1), recorded.calibration_error_before_temperature),
        (softmax(plain / metadata["temperature"], axis=1), recorded.calibration_error),
    ):
        assert error == pytest.approx(measure_calibration_error(probabilities, labels), abs=1e-4)


def test_the_exported_network_gives_keras_logits(version, logits, image_folder):
    """Before label smoothing is removed."""
    exported = load_network(version)(load_data(str(image_folder)).test.images, "")
    np.testing.assert_allclose(exported, logits, atol=1e-3)
