"""Behaviour of training.export."""

import errno
import itertools
import os
import subprocess
from contextlib import nullcontext
from pathlib import Path

import keras
import numpy as np
import openvino
import pytest
import tensorflow as tf

from app.contract import GOLDEN_FILE, GOLDEN_TOLERANCES, METADATA_FILE, ModelMetadata, verify_files
from tests.training.fitting import shrink_network
from tests.training.images import CLASSES
from training.calibration import Calibration
from training.config import Recipe
from training.export import (
    ServedModel,
    export_model,
    make_golden,
    predict_features,
    publish_version,
    read_commit,
    rebuild_in_float32,
    stage_version,
)
from training.failures import ExportError
from training.network import mini_model
from training.pipeline import measure_normalization
from training.typicality import fit_typicality

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def metadata(version) -> ModelMetadata:
    return ModelMetadata.model_validate_json((version / METADATA_FILE).read_bytes())


@pytest.fixture(scope="module")
def golden(version):
    with np.load(version / GOLDEN_FILE) as file:
        return file["images"], file["probabilities"], file["typicality"]


def test_a_version_has_the_files_of_the_contract(version, metadata):
    """SavedModel, golden images and card, with digests, readable by the service's user."""
    assert {path.name for path in version.iterdir()} >= {
        "saved_model.pb",
        "variables",
        "metadata.json",
        "golden.npz",
        "card",
    }
    verify_files(version, metadata)
    assert version.stat().st_mode & 0o755 == 0o755


def test_a_saved_model_contains_its_weights_once(version, metadata):
    """Without the optimizer's state; the full network is smaller than 20 MB."""

    def measure(folder, pattern):
        return sum(path.stat().st_size for path in folder.glob(pattern))

    assert measure(version, "variables/*") < 4 * metadata.parameters + 20e3
    assert measure(version, "saved_model.pb") < 2e6
    for shipped in (ROOT / "models" / "minimodel").glob("[0-9]*"):
        assert measure(shipped, "variables/*") + measure(shipped, "saved_model.pb") < 20e6


def test_the_metadata_describe_the_run(metadata, job):
    """Name, classes, tensors, data, recipe and figures."""
    assert (metadata.name, metadata.version, metadata.class_names) == ("shapes", 1, CLASSES)
    assert (metadata.input.dtype, metadata.input.shape) == ("uint8", (32, 32, 3))
    assert (metadata.output.name, metadata.output.shape) == ("probabilities", (3,))
    assert (metadata.typicality.name, metadata.typicality.dtype, metadata.typicality.shape) == (
        "typicality",
        "float32",
        (),
    )
    assert (metadata.data.train_size, metadata.data.validation_size, metadata.data.test_size) == (36, 12, 24)
    assert metadata.recipe["epochs"] == 2
    assert 0 <= metadata.metrics.accuracy <= 1
    assert metadata.libraries["tensorflow"] == tf.__version__
    assert not list((job / "models" / "shapes").glob(".writing-*"))


def test_tensorflow_and_openvino_agree_on_the_golden_images(version, golden):
    """Both give Keras's answers, at any batch size."""
    images, probabilities, typicality = golden
    assert (images.shape, images.dtype, probabilities.dtype) == ((32, 32, 32, 3), np.uint8, np.float32)
    assert (typicality.shape, typicality.dtype) == ((32,), np.float32)
    signature = tf.saved_model.load(version).signatures["serving_default"]
    compiled = openvino.Core().compile_model(version, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for count in (1, 7, 16):
        by_tensorflow, by_openvino = signature(images=tf.constant(images[:count])), compiled(images[:count])
        np.testing.assert_allclose(by_tensorflow["probabilities"], probabilities[:count], atol=1e-5)
        np.testing.assert_allclose(by_openvino["probabilities"], probabilities[:count], atol=1e-4)
        np.testing.assert_allclose(by_tensorflow["typicality"], typicality[:count], atol=1e-5)
        np.testing.assert_allclose(by_openvino["typicality"], typicality[:count], atol=1e-5)


def test_the_signature_follows_the_contract(version, metadata):
    """One signature with named tensors and a dynamic batch size."""
    signatures = tf.saved_model.load(version).signatures
    assert list(signatures) == ["serving_default"]
    (spec,) = signatures["serving_default"].structured_input_signature[1].values()
    assert (spec.name, spec.dtype, spec.shape.as_list()) == ("images", tf.uint8, [None, *metadata.input.shape])


def serve(network, seed=0):
    """Combine an untrained network with everything that is exported with it."""
    images = np.random.default_rng(seed).integers(0, 256, (24, 32, 32, 3)).astype(np.uint8)
    normalize = measure_normalization(images, "channel")
    features = predict_features(network, normalize, images)
    typicality = fit_typicality(features[:12], np.arange(12) % 3, features[12:])
    return ServedModel(network, normalize, Calibration(0, 1), typicality)


def test_an_export_with_other_probabilities_is_refused(tmp_path, monkeypatch):
    """If the saved graph differs from the fitted network, nothing is published."""
    shrink_network(monkeypatch)
    served = serve(mini_model(num_classes=3))
    random = np.random.default_rng(0)
    monkeypatch.setattr("training.export.predict_logits", lambda *given: random.normal(size=(len(given[-1]), 3)))
    with pytest.raises(ExportError, match="at batch size 1 the SavedModel's probabilities differ from Keras's by"):
        export_model(served, tmp_path)


def test_an_export_with_other_typicality_is_refused(tmp_path, monkeypatch):
    """For example if the graph has other held-out distances."""
    shrink_network(monkeypatch)
    served = serve(mini_model(num_classes=3))
    center = served.typicality.center  # noise is far from these
    monkeypatch.setattr("training.export.predict_features", lambda *given: np.tile(center, (len(given[-1]), 1)))
    with pytest.raises(ExportError, match="the SavedModel's typicality differ from Keras's by"):
        export_model(served, tmp_path)


def tell_colour(images):
    """Answer with the strongest channel, with a confidence by its strength: mostly red, rarely blue."""
    means = images.mean(axis=(1, 2), dtype=np.float32) + np.float32((8, 4, 0))
    raised = np.exp(means - means.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def test_golden_images_show_each_label_in_turn():
    """Even if most of the clearest answers have the same label."""
    images, probabilities = make_golden(tell_colour)
    np.testing.assert_array_equal(tell_colour(images), probabilities)
    assert sorted(np.bincount(probabilities.argmax(axis=1))) == [10, 11, 11]
    assert probabilities.max(axis=1).min() > 0.99


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_golden_images_detect_confused_labels(order):
    """Whichever labels are confused, the difference is larger than quantization's."""
    _, probabilities = make_golden(tell_colour)
    difference = np.abs(probabilities[:, order] - probabilities).max()
    assert difference == 0 if order == (0, 1, 2) else difference > 2 * GOLDEN_TOLERANCES["int8"]


def test_golden_images_detect_a_constant_answer():
    """Even the most frequent one."""
    _, probabilities = make_golden(tell_colour)
    assert np.abs(probabilities[0] - probabilities).max() > 2 * GOLDEN_TOLERANCES["int8"]


def test_images_with_unclear_answers_come_last():
    """Rounding may change their labels."""

    def doubt(images):
        probabilities = tell_colour(images)
        third = probabilities.argmax(axis=1) == 2
        return np.where(third[:, None], np.float32((0.3, 0.3, 0.4)), probabilities)

    _, probabilities = make_golden(doubt)
    assert set(probabilities.argmax(axis=1)) == {0, 1}
    images, probabilities = make_golden(lambda images: np.full((len(images), 3), 1 / 3, np.float32))
    assert len(images) == len(probabilities) == 32


@pytest.mark.parametrize(("noise", "refused"), [(5e-5, False), (5e-4, True)])
def test_rounding_does_not_refuse_an_export(noise, refused, tmp_path, monkeypatch):
    """GPUs add in another order than CPUs. Larger differences are refused."""
    shrink_network(monkeypatch)
    served = serve(mini_model(num_classes=3))

    def add_noise(classify, size):
        images, probabilities = make_golden(classify, size)
        return images, probabilities + np.float32(noise)

    monkeypatch.setattr("training.export.make_golden", add_noise)
    with pytest.raises(ExportError, match=r"differ from Keras's by 0\.0005") if refused else nullcontext():
        export_model(served, tmp_path)


def test_the_exported_network_computes_in_float32(monkeypatch):
    """With the fitted weights, whatever precision they were fitted in."""
    shrink_network(monkeypatch)
    keras.config.set_dtype_policy("mixed_bfloat16")
    fitted = mini_model(num_classes=3)
    rebuilt = rebuild_in_float32(fitted, Recipe())
    assert {layer.compute_dtype for layer in rebuilt.layers} == {"float32"}
    for ours, theirs in zip(rebuilt.get_weights(), fitted.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("precious", [True, False])
def test_a_version_is_never_overwritten(tmp_path, metadata, precious):
    """If the number was taken in the meantime, the export fails; even an empty folder stays."""
    taken = tmp_path / "1"
    taken.mkdir()
    if precious:
        (taken / "precious").write_text("kept")
    fields = metadata.model_dump(exclude={"files"})
    with stage_version(tmp_path) as staged:
        (staged / "saved_model.pb").write_bytes(b"")
        with pytest.raises(ExportError, match="never overwritten"):
            publish_version(staged, tmp_path / "1", fields)
    assert [path.read_text() for path in taken.iterdir()] == ["kept"] * precious
    assert list(tmp_path.iterdir()) == [taken]


def test_a_failed_rename_gives_the_systems_reason(tmp_path, metadata, monkeypatch):
    """It does not say that the number is taken."""

    def refuse(*_):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "rename", refuse)
    with stage_version(tmp_path) as staged:
        (staged / "saved_model.pb").write_bytes(b"")
        with pytest.raises(ExportError, match=f"to {tmp_path}/1: Permission denied"):
            publish_version(staged, tmp_path / "1", metadata.model_dump(exclude={"files"}))


@pytest.fixture
def git(tmp_path, monkeypatch):
    """A repository with one commit, and with the code at .venv/export.py; returns a function that runs git in it."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:  # in a hook, they name another repository
        monkeypatch.delenv(name)

    def run(*arguments):
        command = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / ".gitignore").write_text(".venv/\n")
    source = tmp_path / ".venv" / "export.py"
    source.parent.mkdir()
    source.touch()
    run("init", "--quiet")
    run("add", ".gitignore")
    run("commit", "--quiet", "--message", "x")
    monkeypatch.setattr("training.export.__file__", str(source))
    monkeypatch.delenv("MINIMODEL_COMMIT", raising=False)
    return run


def test_the_commit_is_that_of_the_checkout(git, tmp_path):
    """In full, and marked if a tracked file was changed."""
    git("add", "--force", ".venv/export.py")
    git("commit", "--quiet", "--message", "y")
    assert read_commit() == git("rev-parse", "HEAD")
    (tmp_path / ".venv" / "export.py").write_text("changed")
    assert read_commit() == f"{git('rev-parse', 'HEAD')}-dirty"


@pytest.mark.parametrize("ignored", [True, False])
def test_code_installed_in_another_checkout_does_not_get_its_commit(git, tmp_path, monkeypatch, ignored):
    """But that of the environment, as in the container image, or `unknown`."""
    (tmp_path / ".gitignore").write_text(".venv/\n" * ignored)
    git("commit", "--quiet", "--all", "--allow-empty", "--message", "y")
    assert read_commit() == "unknown"
    monkeypatch.setenv("MINIMODEL_COMMIT", "f" * 40)
    assert read_commit() == "f" * 40
