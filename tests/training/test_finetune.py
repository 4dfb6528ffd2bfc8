"""Behaviour of training.finetune."""

import json
import shutil

import numpy as np
import pytest

from app.contract import METADATA_FILE
from tests.training.fitting import shrink_network
from tests.training.images import draw_split
from training.config import Recipe
from training.data import load_data, split_validation
from training.failures import VersionError
from training.finetune import fit_normalization, load_start, make_initial_weights
from training.network import mini_model
from training.pipeline import Normalization, measure_normalization


@pytest.fixture
def start(version, monkeypatch):
    """What a network gets from the job's version."""
    monkeypatch.setattr("training.network.STAGES", ((32, 1), (64, 1), (128, 1), (256, 1)))
    return load_start(version)


def test_the_normalization_is_read_from_the_graph(start, image_folder):
    """It is that of the images that the version was trained on."""
    train, _ = split_validation(load_data(str(image_folder)).train, 0.25, seed=0)
    expected = measure_normalization(train.images, "channel")
    assert start.name == "shapes 1"
    np.testing.assert_allclose(start.normalize.mean, expected.mean, atol=1e-5)
    np.testing.assert_allclose(start.normalize.deviation, expected.deviation, rtol=1e-4)


@pytest.mark.parametrize(("classes", "size"), [(3, 32), (2, 32), (3, 48)])
def test_a_network_starts_with_the_versions_weights_and_a_new_head(start, classes, size):
    """The head is fitted to the features of the training images, at any size."""
    split = draw_split(10, seed=5)
    split = split._replace(images=split.images[: 10 * classes], labels=split.labels[: 10 * classes])
    if size != 32:
        split = split._replace(images=np.pad(split.images, [(0, 0), (8, 8), (8, 8), (0, 0)]))
    weights = make_initial_weights(start, split, Recipe(), [f"class {number}" for number in range(classes)])
    for ours, theirs in zip(weights[:-2], start.weights[:-2], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    network = mini_model((size, size, 3), classes)
    network.set_weights(weights)
    answers = network(start.normalize(split.images)).numpy().argmax(axis=1)
    assert (answers == split.labels).mean() > 1.5 / classes


def test_a_network_for_the_same_classes_keeps_the_head(start):
    """So that a version can be trained further."""
    assert make_initial_weights(start, draw_split(10, seed=5), Recipe(), start.class_names) is start.weights


def test_deviations_by_position_are_averaged_for_another_size():
    """Deviations by channel fit all sizes."""
    deviation = np.arange(32 * 32 * 3, dtype=np.float32).reshape(32, 32, 3)
    normalize = Normalization(np.float32(0.5), deviation)
    assert fit_normalization(normalize, 32).deviation is deviation
    np.testing.assert_allclose(fit_normalization(normalize, 48).deviation, deviation.mean(axis=(0, 1)))
    channel = Normalization(np.float32(0.5), np.ones(3, np.float32))
    assert fit_normalization(channel, 48).deviation is channel.deviation


def test_other_networks_are_refused(version, monkeypatch):
    """Weights of other shapes, in one line."""
    shrink_network(monkeypatch)
    with pytest.raises(VersionError, match="has no weights of a MiniModel: ") as error:
        load_start(version)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("start")
def test_a_version_whose_weights_give_other_answers_is_refused(version, tmp_path):
    """For example because its metadata have another calibration."""
    folder = shutil.copytree(version, tmp_path / "1")
    metadata = json.loads((folder / METADATA_FILE).read_text())
    (folder / METADATA_FILE).write_text(json.dumps(metadata | {"temperature": 5 * metadata["temperature"]}))
    with pytest.raises(VersionError, match="gives other probabilities than the version"):
        load_start(folder)


def test_a_folder_without_a_version_is_refused(tmp_path):
    """For example a mistyped path."""
    with pytest.raises(VersionError, match="is not a version: "):
        load_start(tmp_path)
