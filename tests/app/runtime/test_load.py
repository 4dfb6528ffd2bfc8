"""Behaviour of app.runtime.load, on a real SavedModel."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from app.errors import RefusedVersionError
from app.runtime.cpu import count_cpus
from app.runtime.load import count_workers, load_runtime
from tests.app.artifacts import load_version
from tests.app.fakes import INPUT


@pytest.mark.parametrize("name", ["openvino", "tensorflow"])
def test_both_runtimes_load_a_version(exported, name):
    """It passes verification, and gives one row of probabilities for each image."""
    model = load_version(exported, name)
    assert (model.runtime.name, model.runtime.precision) == (name, "f32")
    assert (model.image_size, model.num_classes) == ((8, 6), 3)
    blue = np.zeros((7, *INPUT.shape), dtype=np.uint8)
    blue[..., 2] = 255
    probabilities, typicality = model.predict(blue)
    assert typicality is None
    assert probabilities.shape == (7, 3)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities[:, 2], 1, atol=1e-3)


def test_the_runtimes_agree(exported):
    """They give the same probabilities for the same images."""
    images = np.random.default_rng(5).integers(0, 256, (9, *INPUT.shape), dtype=np.uint8)
    openvino, tensorflow = load_version(exported).predict(images), load_version(exported, "tensorflow").predict(images)
    np.testing.assert_allclose(openvino.probabilities, tensorflow.probabilities, atol=1e-5)


def test_tensorflow_computes_in_float32(exported):
    """Not in TF32, its default on GPUs that support it, which would miss the golden probabilities."""
    import tensorflow as tf  # noqa: PLC0415 -- seconds

    tf.config.experimental.enable_tensor_float_32_execution(True)  # noqa: FBT003 -- as it is by default
    load_version(exported, "tensorflow")
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


def test_concurrent_batches_get_their_own_answers(exported):
    """Workers share no buffers, even with more callers than workers."""
    runtime = load_runtime(exported, name="openvino", precision="f32", threads=2)
    alone = load_runtime(exported, name="openvino", precision="f32", threads=1)

    def ask(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(50):
            images = rng.integers(0, 256, (rng.choice([1, 1, 4]), *INPUT.shape), dtype=np.uint8)
            run = rng.choice([runtime.predict, runtime.predict_alone])
            np.testing.assert_allclose(run(images).probabilities, alone.predict(images).probabilities, atol=1e-5)

    with ThreadPoolExecutor(4) as callers:
        list(callers.map(ask, range(4)))


def test_openvino_has_a_worker_for_each_thread_and_tensorflow_one_for_all():
    """TensorFlow itself spreads a batch over threads or a GPU."""
    assert count_workers("openvino", 3) == 3
    assert count_workers("openvino", 0) == count_cpus()
    assert count_workers("tensorflow", 3) == 1


def test_openvino_chooses_a_precision_that_passes(exported):
    """What the CPU supports natively stays within its tolerance."""
    assert load_version(exported, precision="auto").runtime.precision in {"f32", "bf16", "f16"}


def test_a_missing_tensorflow_is_reported(exported, monkeypatch):
    """The reason says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "tensorflow", None)
    with pytest.raises(RefusedVersionError, match="TensorFlow is not installed"):
        load_version(exported, "tensorflow")
