"""Behaviour of app.versions and app.runtime with typicality as a second output."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from app.contract import GOLDEN_FILE
from app.errors import InferenceError, RefusedVersionError
from app.runtime.load import Answers, Runtime, load_runtime
from app.versions.model import Model
from tests.app.artifacts import load_version
from tests.app.fakes import INPUT, OUTPUT, TYPICALITY, make_metadata, make_model, seal, tell_colours

HELD_OUT = make_metadata().data.model_copy(update={"validation_size": 2500})
RUNTIMES = pytest.mark.parametrize("name", ["openvino", "tensorflow"])
IMAGES = np.random.default_rng(0).integers(0, 256, (16, *INPUT.shape), dtype=np.uint8)
BRIGHTNESS = IMAGES.mean(axis=(1, 2, 3), dtype=np.float32) / 255


def save_graph(folder: Path, second: str) -> None:
    """Save a graph whose output `second` is the image's brightness."""

    @tf.function(input_signature=[tf.TensorSpec((None, *INPUT.shape), tf.uint8, name="images")])
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        means = tf.reduce_mean(tf.cast(images, tf.float32) / 255, axis=(1, 2))
        return {"probabilities": tf.nn.softmax(10 * means), second: tf.reduce_mean(means, axis=1)}

    module = tf.Module()
    module.serve = serve
    tf.saved_model.save(module, folder, signatures={"serving_default": serve})
    np.savez(folder / GOLDEN_FILE, images=IMAGES, probabilities=serve(IMAGES)["probabilities"], typicality=BRIGHTNESS)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("typicality") / "1"
    save_graph(folder, "typicality")
    seal(folder, typicality=TYPICALITY)
    return folder


@pytest.fixture
def version(saved: Path, tmp_path: Path) -> Path:
    """A copy, for tests that damage it."""
    return Path(shutil.copytree(saved, tmp_path / "1"))


def refuse(version: Path, name: str, reason: str) -> None:
    with pytest.raises(RefusedVersionError, match=reason):
        load_version(version, name)


@RUNTIMES
@pytest.mark.parametrize("alone", [True, False])
def test_every_image_gets_its_own_typicality(saved, name, alone):
    """With each runtime, in batches and alone."""
    model = Model(make_metadata(), load_runtime(saved, name=name, precision="auto", threads=2))
    probabilities, typicality = model.predict(IMAGES, alone=alone)
    assert probabilities.shape == (16, 3)
    assert (typicality.shape, typicality.dtype) == ((16,), np.float32)
    np.testing.assert_allclose(typicality, BRIGHTNESS, atol=0.01)
    scores = model.score(IMAGES, alone=alone)
    assert [score.typicality for score in scores] == pytest.approx(typicality.tolist())
    np.testing.assert_array_equal([score.probabilities for score in scores], probabilities)


@RUNTIMES
@pytest.mark.parametrize(
    ("typicality", "reason"),
    [
        (1 - BRIGHTNESS / 2, "its golden images have another typicality than at export"),
        (np.full(16, np.nan, np.float32), "its golden images have another typicality than at export"),
        (BRIGHTNESS[:, None], r"contains typicality float32 \(16, 1\)"),
    ],
    ids=["other", "nan", "shape"],
)
def test_wrong_golden_typicality_is_refused(version, name, typicality, reason):
    """The graph is not the exported one."""
    load_version(version, name)
    with np.load(version / GOLDEN_FILE) as golden:
        np.savez(version / GOLDEN_FILE, **{**golden, "typicality": typicality})
    seal(version, typicality=TYPICALITY, data=HELD_OUT)
    refuse(version, name, reason)


@RUNTIMES
def test_the_tolerance_of_typicality_follows_the_number_of_held_out_images(version, name):
    """Rounding can swap two distances: with seven images, that is an eighth."""
    with np.load(version / GOLDEN_FILE) as golden:
        np.savez(version / GOLDEN_FILE, **{**golden, "typicality": BRIGHTNESS + np.float32(1 / 8)})
    seal(version, typicality=TYPICALITY, data=HELD_OUT.model_copy(update={"validation_size": 7}))
    load_version(version, name)
    seal(version, typicality=TYPICALITY, data=HELD_OUT.model_copy(update={"validation_size": 20}))
    refuse(version, name, "differs by 0.125")


@RUNTIMES
def test_missing_golden_typicality_is_refused(version, name):
    """Otherwise nothing would verify the output."""
    with np.load(version / GOLDEN_FILE) as golden:
        np.savez(version / GOLDEN_FILE, images=golden["images"], probabilities=golden["probabilities"])
    seal(version, typicality=TYPICALITY)
    refuse(version, name, "golden.npz can't be read: 'typicality is not a file in the archive'")


@RUNTIMES
def test_metadata_and_graph_must_have_the_same_outputs(version, exported, tmp_path, name):
    """A second output must be in both or in neither."""
    seal(version)
    refuse(version, name, "describes the typicality as None, the graph has")
    without = Path(shutil.copytree(exported, tmp_path / "without" / "1"))
    with np.load(without / GOLDEN_FILE) as golden:
        np.savez(without / GOLDEN_FILE, **golden, typicality=BRIGHTNESS)
    seal(without, typicality=TYPICALITY)
    refuse(without, name, "the graph has None")


@RUNTIMES
def test_an_unknown_second_output_is_refused(tmp_path, name):
    """Nothing says what it means."""
    save_graph(tmp_path / "1", "brightness")
    seal(tmp_path / "1")
    refuse(tmp_path / "1", name, "it has the outputs ")


def give(typicality: np.ndarray) -> Callable[..., Answers]:
    return lambda images: Answers(tell_colours(images), typicality)


@pytest.mark.parametrize("wrong", [[np.nan], [-0.5], [1.5], [0.1, 0.2], [[0.1]]])
def test_invalid_typicality_is_an_inference_error(wrong):
    """Clients never get it, nor that of another image."""
    runtime = Runtime("fake", "f32", INPUT, OUTPUT, give(np.float32(wrong)))
    with pytest.raises(InferenceError, match="invalid typicality"):
        Model(make_metadata(), runtime).predict(IMAGES[:1])


def test_a_version_without_typicality_serves():
    """Its scores have none."""
    assert [score.typicality for score in make_model().score(IMAGES[:2])] == [None, None]
