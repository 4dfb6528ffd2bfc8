"""Behaviour of app.model and app.runtime, on a real SavedModel."""

import errno
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from app.contract import GOLDEN_TOLERANCES, INT8_FILE, METADATA_FILE, Metrics, ModelMetadata, RuntimeMetrics, TensorSpec
from app.cpu import count_cpus
from app.errors import InferenceError, RefusedVersionError
from app.model import Model, load_model, make_loader
from app.runtime import MAX_GRAPH_BYTES, Runtime, count_lanes, load_runtime
from app.settings import Settings
from tests.app.fakes import INPUT, OUTPUT, make_model, seal, tell_colours

AS_ACCURATE = Metrics(
    runtimes={"openvino f32": RuntimeMetrics(accuracy=0.9), "openvino int8": RuntimeMetrics(accuracy=0.9)}
)


def load(folder: Path, name: str = "openvino", precision: str = "f32", batch_sizes: Sequence[int] = (1, 4, 5)) -> Model:
    def runtime(folder: Path, metadata: ModelMetadata) -> Runtime:  # noqa: ARG001
        return load_runtime(folder, name=name, precision=precision, threads=1)

    return load_model(folder, load_runtime=runtime, batch_sizes=batch_sizes)


@pytest.fixture
def refuse(version: Path) -> Callable[[str], None]:
    """Load the broken version with either runtime and expect it to be refused for the reason given."""

    def check(reason: str) -> None:
        for name in ("openvino", "tensorflow"):
            with pytest.raises(RefusedVersionError, match=reason):
                load(version, name)

    return check


@pytest.mark.parametrize("name", ["openvino", "tensorflow"])
def test_both_runtimes_load_a_version_and_tell_its_colours(exported, name):
    """A good version is verified, and the metadata says what its numbers mean."""
    model = load(exported, name)
    assert (model.runtime.name, model.runtime.precision) == (name, "f32")
    assert (model.image_size, model.num_classes) == ((8, 6), 3)
    blue = np.zeros((7, *INPUT.shape), dtype=np.uint8)
    blue[..., 2] = 255
    probabilities = model.predict(blue)
    assert probabilities.shape == (7, 3)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities[:, 2], 1, atol=1e-3)


def test_the_runtimes_agree(exported):
    """One SavedModel, one answer, whatever runs it."""
    images = np.random.default_rng(5).integers(0, 256, (9, *INPUT.shape), dtype=np.uint8)
    openvino, tensorflow = load(exported).predict(images), load(exported, "tensorflow").predict(images)
    np.testing.assert_allclose(openvino, tensorflow, atol=1e-5)


def test_batches_beside_each_other_keep_to_their_own_images(exported):
    """Lanes share a model and no buffers: more callers than lanes, alone and in batches, each get their own answers."""
    runtime = load_runtime(exported, name="openvino", precision="f32", threads=2)
    alone = load_runtime(exported, name="openvino", precision="f32", threads=1)

    def ask(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(50):
            images = rng.integers(0, 256, (rng.choice([1, 1, 4]), *INPUT.shape), dtype=np.uint8)
            run = rng.choice([runtime.predict, runtime.predict_alone])
            np.testing.assert_allclose(run(images), alone.predict(images), atol=1e-5)

    with ThreadPoolExecutor(4) as callers:
        list(callers.map(ask, range(4)))


def test_openvino_has_a_lane_for_each_thread_and_tensorflow_one_for_all():
    """TensorFlow, and a GPU with it, spreads a batch by itself."""
    assert count_lanes("openvino", 3) == 3
    assert count_lanes("openvino", 0) == count_cpus()
    assert count_lanes("tensorflow", 3) == 1


def test_openvino_chooses_a_precision_that_passes(exported):
    """Whatever the CPU has natively keeps to the tolerance stated for it."""
    assert load(exported, precision="auto").runtime.precision in {"f32", "bf16", "f16"}


def test_every_batch_size_is_warm(exported):
    """No client pays for the first batch of its size."""
    sizes = []

    def predict(images):
        sizes.append(len(images))
        return probabilities(images)

    good = load(exported)
    probabilities = good.runtime.predict
    runtime = Runtime("fake", "f32", INPUT, OUTPUT, predict)
    load_model(exported, load_runtime=lambda *_: runtime, batch_sizes=range(1, 7))
    assert set(range(1, 7)) <= set(sizes)
    assert max(sizes) == 6


def test_every_lane_is_warm(exported):
    """Each makes kernels of its own, so they are warmed beside each other."""
    meeting = threading.Barrier(3, timeout=10)

    def predict(images):
        if len(images) == 2:
            meeting.wait()
        return probabilities(images)

    probabilities = load(exported).runtime.predict
    runtime = Runtime("fake", "f32", INPUT, OUTPUT, predict)
    load_model(exported, load_runtime=lambda *_: runtime, batch_sizes=[1, 2, 32], lanes=3)


def test_metadata_must_be_there(version, refuse):
    """A folder without metadata is half written, or no version."""
    (version / METADATA_FILE).unlink()
    refuse("metadata.json can't be read: No such file")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}', '{"schema_version": 2}'])
def test_metadata_must_parse(version, refuse, text):
    """Corrupt metadata is refused with the place of its first fault."""
    (version / METADATA_FILE).write_text(text)
    refuse("metadata.json is not valid")


@pytest.mark.parametrize("field", sorted(ModelMetadata.model_fields.keys() - {"schema_version"}))
def test_metadata_must_be_complete(version, refuse, field):
    """Nothing is guessed of what a version does not tell."""
    path = version / METADATA_FILE
    metadata = json.loads(path.read_text())
    del metadata[field]
    path.write_text(json.dumps(metadata))
    refuse(f"metadata.json is not valid: {field}: Field required")


def test_metadata_must_be_of_a_sane_size(version, refuse):
    """A file that would fill the memory is not read."""
    with (version / METADATA_FILE).open("a") as file:
        file.write(" " * 2**20)
    refuse("larger than")


@pytest.mark.parametrize("what", ["fifo", "device", "link", "folder"])
def test_metadata_must_be_a_regular_file(version, refuse, what):
    """Reading anything else might never end: it would keep every later version out."""
    path = version / METADATA_FILE
    path.rename(version / "aside")
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if what == "device" else "aside")
    refuse("metadata.json is not a regular file")


@pytest.mark.parametrize("file", [METADATA_FILE, "saved_model.pb", "golden.npz"])
def test_a_file_that_can_not_be_read_now_says_nothing_of_the_version(version, monkeypatch, file):
    """The volume's trouble is raised as what it is, so that the version is tried again."""
    open_file = Path.open

    def open_or_fail(path, *args, **options):
        if path.name == file:
            raise OSError(errno.EIO, "Input/output error")
        return open_file(path, *args, **options)

    monkeypatch.setattr(Path, "open", open_or_fail)
    if file == "golden.npz":
        monkeypatch.setattr("app.model.verify_files", lambda *_: None)
        monkeypatch.setattr("zipfile.ZipFile", open_or_fail)
    with pytest.raises(OSError, match="Input/output error"):
        load(version)


def test_a_class_name_that_is_there_twice_is_refused(version, refuse):
    """Nobody could tell the two apart in an answer."""
    seal(version, class_names=("red", "green", "red"))
    refuse("a class name is there twice")


def test_metadata_must_name_its_folders_version(version, refuse):
    """A version copied under another number would claim to be what it is not."""
    seal(version, version=2)
    refuse("says version 2, the folder 1")


def test_metadata_may_name_no_file_outside_the_version(version, refuse):
    """Artifacts are input too."""
    metadata = json.loads((version / METADATA_FILE).read_text())
    metadata["files"]["../../etc/passwd"] = "0" * 64
    (version / METADATA_FILE).write_text(json.dumps(metadata))
    refuse("not a plain path")


def test_a_changed_file_is_refused(version, refuse):
    """One bit is enough."""
    variables = version / "variables" / "variables.data-00000-of-00001"
    data = bytearray(variables.read_bytes())
    data[0] ^= 1
    variables.write_bytes(data)
    refuse("digest differs: variables/variables.data")


def test_a_missing_file_is_refused(version, refuse):
    """A copy that has not ended is not loaded."""
    (version / "saved_model.pb").unlink()
    refuse("missing: saved_model.pb")


def test_an_unnamed_file_is_refused(version, refuse):
    """Nothing is in the folder that training did not put there."""
    (version / "extra.py").write_text("")
    refuse("not named in metadata.json: extra.py")


@pytest.mark.parametrize("target", ["saved_model.pb", "variables"])
def test_a_symbolic_link_is_refused(version, refuse, target):
    """A link could lead out of the version."""
    (version / target).rename(version.parent / "elsewhere")
    (version / target).symlink_to(version.parent / "elsewhere")
    refuse("not a regular file")


def test_a_broken_saved_model_is_refused(version, refuse):
    """What no runtime can load is told apart from what was changed on the way."""
    (version / "saved_model.pb").write_bytes(b"not a graph")
    seal(version)
    refuse("can't load it")


@pytest.mark.parametrize(
    ("role", "shape", "reason"),
    [
        ("input", (9, 9, 3), "the graph has"),
        ("input", (8, 6, 1), "images are uint8"),
        ("input", (8, 6), "images are uint8"),
        ("output", (4,), "3 class names"),
    ],
)
def test_a_signature_other_than_the_metadata_says_is_refused(version, refuse, role, shape, reason):
    """Images of the wrong shape never reach a model."""
    spec = {"input": INPUT, "output": OUTPUT}[role]
    seal(version, **{role: TensorSpec(name=spec.name, dtype=spec.dtype, shape=shape)})
    refuse(reason)


def test_another_number_of_class_names_is_refused(version, refuse):
    """Probabilities without a name, or names without a probability."""
    seal(version, class_names=("red", "green"))
    refuse("2 class names")


def rewrite_golden(version: Path, **arrays: np.ndarray) -> None:
    with np.load(version / "golden.npz") as golden:
        arrays = {name: arrays.get(name, golden[name]) for name in ("images", "probabilities")}
    np.savez(version / "golden.npz", **arrays)
    seal(version)


def test_other_golden_answers_are_refused(version, refuse):
    """The model that loads is not the model that was exported."""
    rewrite_golden(version, probabilities=np.full((16, 3), 1 / 3, dtype=np.float32))
    refuse("other probabilities than at export")


def test_golden_answers_that_are_no_numbers_are_refused(version, refuse):
    """Nothing is further from them than the tolerance, and nothing nearer."""
    rewrite_golden(version, probabilities=np.full((16, 3), np.nan, dtype=np.float32))
    refuse("other probabilities than at export")


def test_golden_images_of_another_shape_are_refused(version, refuse):
    """They were not made for this model."""
    rewrite_golden(version, images=np.zeros((16, 9, 9, 3), dtype=np.uint8))
    refuse("do not fit the model")


@pytest.mark.parametrize("count", [0, 257])
def test_a_senseless_number_of_golden_images_is_refused(version, refuse, count):
    """None proves nothing, and too many would keep the service from starting."""
    rewrite_golden(
        version,
        images=np.zeros((count, *INPUT.shape), dtype=np.uint8),
        probabilities=np.zeros((count, 3), dtype=np.float32),
    )
    refuse("do not fit the model")


def test_golden_images_that_fill_the_memory_are_refused(version, refuse):
    """A few bytes of zip may unpack to gigabytes."""
    np.savez_compressed(version / "golden.npz", images=np.zeros(65 * 2**20, dtype=np.uint8))
    seal(version)
    refuse("unpacks to more than")


def test_golden_images_are_never_unpickled(version, refuse):
    """A pickle is a program."""
    np.savez(version / "golden.npz", images=np.array([{}]), probabilities=np.zeros(1))
    seal(version)
    refuse("golden.npz can't be read")


@pytest.mark.parametrize("content", [None, b"", b"PK garbage"])
def test_golden_images_must_be_there(version, refuse, content):
    """A version that can't be checked may not serve."""
    (version / "golden.npz").unlink()
    if content is not None:
        (version / "golden.npz").write_bytes(content)
    seal(version)
    refuse("golden.npz can't be read")


def test_tensorflow_is_named_where_it_is_missing(exported, monkeypatch):
    """The serving image has no TensorFlow: the reason says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "tensorflow", None)
    with pytest.raises(RefusedVersionError, match="TensorFlow is not installed"):
        load(exported, "tensorflow")


@pytest.mark.parametrize("wrong", [np.nan, -0.5, 1.5])
def test_numbers_that_are_no_probabilities_are_a_failure(wrong):
    """They never reach a client."""
    model = make_model(lambda images: np.full((len(images), 3), wrong, dtype=np.float32))
    with pytest.raises(InferenceError, match="no probabilities"):
        model.predict(np.zeros((2, *INPUT.shape), dtype=np.uint8))


def test_too_few_rows_are_a_failure():
    """Nobody could tell whose are missing."""
    model = make_model(lambda images: tell_colours(images)[1:])
    with pytest.raises(InferenceError, match="shape"):
        model.predict(np.zeros((2, *INPUT.shape), dtype=np.uint8))


@pytest.fixture
def quantized(version: Path) -> Path:
    """A version with a second graph where a quantized one would be; the service can't tell, nor need it."""
    import openvino  # noqa: PLC0415 -- after app.runtime

    openvino.save_model(openvino.Core().read_model(version), version / INT8_FILE, compress_to_fp16=False)
    seal(version, metrics=AS_ACCURATE)
    return version


def test_int8_is_the_quantized_graph(quantized):
    """It runs from its own two files, and says so."""
    (quantized / "saved_model.pb").write_bytes(b"not read")
    seal(quantized)
    model = load(quantized, precision="int8")
    assert model.runtime.precision == "int8"
    np.testing.assert_allclose(model.predict(np.full((1, *INPUT.shape), 255, dtype=np.uint8)), 1 / 3, atol=1e-3)


@pytest.mark.parametrize(
    ("runtime", "flags", "precision"),
    [
        ("openvino", {"avx512_vnni"}, "int8"),
        ("openvino", set(), "f32|bf16|f16"),
        ("tensorflow", {"avx512_vnni"}, "f32"),
    ],
)
def test_auto_takes_int8_where_the_cpu_is_made_for_it(quantized, monkeypatch, runtime, flags, precision):
    """The service's own way to load, from its settings on."""
    monkeypatch.setattr("app.cpu.read_cpu_flags", lambda: flags)
    model = make_loader(Settings(runtime=runtime, precision="auto"), batch_sizes=[1, 2])(quantized)
    assert re.fullmatch(precision, model.runtime.precision)


def test_int8_of_a_version_that_was_not_quantized_is_refused(exported):
    """Whoever asks for it has sized the machine by it: no silent change to something slower."""
    with pytest.raises(RefusedVersionError, match="APP_PRECISION=int8, but it was exported without --quantize"):
        make_loader(Settings(precision="int8"), batch_sizes=[1, 2])(exported)


def refuse_int8(version: Path, reason: str) -> None:
    seal(version)
    with pytest.raises(RefusedVersionError, match=reason):
        load(version, precision="int8")


@pytest.mark.parametrize("content", [b"", b"<net", b"<net/>"])
def test_a_broken_quantized_graph_is_refused(quantized, content):
    """As a broken SavedModel is."""
    (quantized / INT8_FILE).write_bytes(content)
    refuse_int8(quantized, "can't load it")


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
def test_half_a_quantized_graph_is_refused(quantized, name):
    """Even if the metadata names no more than is there."""
    (quantized / "int8" / name).unlink()
    refuse_int8(quantized, "can't load it")


def test_a_quantized_graph_without_all_of_its_weights_is_refused(quantized):
    """Nothing is read beyond the file's end."""
    weights = quantized / "int8" / "model.bin"
    weights.write_bytes(weights.read_bytes()[:-4])
    refuse_int8(quantized, "can't load it")


def test_a_quantized_graph_that_fills_the_memory_is_refused(quantized):
    """It is not even read."""
    with (quantized / INT8_FILE).open("a") as file:
        file.truncate(MAX_GRAPH_BYTES + 1)
    refuse_int8(quantized, "int8/model.xml is larger than")


def test_a_quantized_graph_of_another_shape_is_refused(quantized):
    """What holds for the SavedModel's signature holds for the graph beside it."""
    graph = (quantized / INT8_FILE).read_text()
    (quantized / INT8_FILE).write_text(graph.replace('shape="?,8,6,3"', 'shape="?,9,6,3"'))
    refuse_int8(quantized, "the graph has")


@pytest.mark.parametrize(("factor", "good"), [(0.9, True), (1.1, False)])
def test_golden_answers_are_compared_as_exactly_as_int8_allows(quantized, factor, good):
    """Rounded to 8 bits a model answers a little otherwise, and never as another model does."""
    golden = load(quantized).predict(np.load(quantized / "golden.npz")["images"])
    golden[0, 0] -= np.copysign(GOLDEN_TOLERANCES["int8"] * factor, golden[0, 0] - 0.5)
    rewrite_golden(quantized, probabilities=golden)
    if good:
        load(quantized, precision="int8")
    else:
        refuse_int8(quantized, "where int8 may be off by")


def test_a_loaded_graph_is_independent_of_its_files(quantized):
    """A mapped file that is overwritten in place would end the process (SIGBUS)."""
    model = load(quantized, precision="int8")
    maps = Path("/proc/self/maps").read_text()
    assert "model.bin" not in maps
    assert model.runtime.precision == "int8"


def test_a_copy_elsewhere_is_as_good(exported, tmp_path):
    """A version carries all it needs."""
    shutil.copytree(exported, tmp_path / "1")
    load(tmp_path / "1")
