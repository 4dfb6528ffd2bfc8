"""Behaviour of training.quantize, in a job with --quantize and in the service."""

import shutil

import numpy as np
import openvino
import pytest

from app.contract import GOLDEN_FILE, GOLDEN_TOLERANCES, INT8_FILE, METADATA_FILE, ModelMetadata, verify_files
from app.runtime.load import load_runtime
from app.settings import Settings
from app.versions.loader import make_loader
from training.data import load_data, split_validation
from training.export import GOLDEN_IMAGES
from training.failures import ExportError
from training.graph import find_logits
from training.quantize import quantize_model


@pytest.fixture(scope="module")
def metadata(quantized) -> ModelMetadata:
    return ModelMetadata.model_validate_json((quantized / METADATA_FILE).read_bytes())


def test_the_metadata_describe_the_quantized_graph(quantized, metadata):
    """Digests, figures, and the library that made it."""
    verify_files(quantized, metadata)
    assert {INT8_FILE, "int8/model.bin"} <= metadata.files.keys()
    assert metadata.libraries["nncf"]
    assert metadata.metrics.runtimes["openvino int8"].accuracy == pytest.approx(metadata.metrics.accuracy, abs=0.1)
    assert "| openvino int8 |" in (quantized / "card" / "README.md").read_text()


def test_weights_are_8_bits_wide(quantized):
    """A quarter of the SavedModel's 32. The matrix of typicality is not quantized."""
    exact = (quantized / "variables" / "variables.data-00000-of-00001").stat().st_size
    whitening = 4 * (256 + 128 + 64 + 32) ** 2
    assert (quantized / "int8" / "model.bin").stat().st_size < 0.3 * exact + whitening


def test_operations_after_the_head_are_not_quantized(quantized):
    """In 8 bits, unlikely classes would get the same probability and a random order."""
    graph = openvino.Core().read_model(quantized / INT8_FILE)
    coming, after = [find_logits(graph)], set()
    while coming:
        coming = [target.get_node() for node in coming for out in node.outputs() for target in out.get_target_inputs()]
        after |= {node.get_type_name() for node in coming}
    assert "Softmax" in after
    assert "FakeQuantize" not in after


def test_the_service_loads_the_quantized_graph(quantized, split):
    """With the SavedModel's signature and nearly its answers, at any batch size."""
    int8, exact = (
        make_loader(Settings(precision=precision), batch_sizes=[1, 2, 4])(quantized) for precision in ("int8", "f32")
    )
    assert (int8.runtime.precision, int8.runtime.input) == ("int8", exact.runtime.input)
    difference = np.abs(int8.predict(split.images).probabilities - exact.predict(split.images).probabilities).max()
    assert 0 < difference < GOLDEN_TOLERANCES["int8"]


def test_golden_images_that_quantization_changes_are_removed(quantized, version):
    """Above half of the service's tolerance, because other CPUs round differently."""
    with np.load(quantized / GOLDEN_FILE) as golden, np.load(version / GOLDEN_FILE) as exact:
        images, probabilities = golden["images"], golden["probabilities"]
        assert {image.tobytes() for image in images} <= {image.tobytes() for image in exact["images"]}
    answers = load_runtime(quantized, name="openvino", precision="int8", threads=0).predict(images)
    assert np.abs(answers.probabilities - probabilities).max() <= GOLDEN_TOLERANCES["int8"] / 2
    assert len(images) >= GOLDEN_IMAGES / 2


def test_the_remaining_golden_images_are_kept(version, split, tmp_path):
    """They still distinguish this model from others."""
    copy = shutil.copytree(version, tmp_path / "1")
    with np.load(copy / GOLDEN_FILE) as file:
        golden = dict(file)
    golden["probabilities"][3] = np.roll(golden["probabilities"][3], 1) + 1
    golden["typicality"][5] += 0.9
    np.savez(copy / GOLDEN_FILE, **golden)
    quantize_model(copy, split.images, split.images, seed=0)
    with np.load(copy / GOLDEN_FILE) as file:
        kept = {image.tobytes() for image in file["images"]}
    assert not {golden["images"][index].tobytes() for index in (3, 5)} & kept
    assert len(kept) >= GOLDEN_IMAGES / 2


def test_typicality_uses_distances_of_the_quantized_network(quantized, image_folder):
    """So it is uniform on held-out images in int8 too."""
    _, held_out = split_validation(load_data(str(image_folder)).train, 0.25, seed=0)
    runtime = load_runtime(quantized, name="openvino", precision="int8", threads=1)
    ranks = np.sort(runtime.predict(held_out.images).typicality) * (len(held_out.images) + 1)
    np.testing.assert_allclose(ranks, np.arange(2, len(held_out.images) + 2), atol=1e-3)


def test_a_graph_that_the_service_would_refuse_is_not_exported(version, split, tmp_path, monkeypatch):
    """The message says how to export the run without int8."""
    monkeypatch.setitem(GOLDEN_TOLERANCES, "int8", 1e-9)
    copy = shutil.copytree(version, tmp_path / "1")
    with pytest.raises(ExportError, match="--resume exports the run without --quantize"):
        quantize_model(copy, split.images, split.images, seed=0)
