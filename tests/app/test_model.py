"""Behaviour of app.model, on a real SavedModel."""

import errno
import io
import json
import os
import shutil
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.contract import METADATA_FILE, ModelMetadata, TensorSpec
from app.errors import InferenceError, RefusedVersionError
from app.model import load_model
from app.runtime import Images, Probabilities, Runtime
from tests.app.fakes import INPUT, OUTPUT, make_model, seal, tell_colours
from tests.app.versions import load_version, rewrite_golden


@pytest.fixture
def refuse(version: Path) -> Callable[[str], None]:
    """Load the broken version with either runtime and expect it to be refused for the reason given."""

    def check(reason: str) -> None:
        for name in ("openvino", "tensorflow"):
            with pytest.raises(RefusedVersionError, match=reason):
                load_version(version, name)

    return check


def give(images: Images, answers: Probabilities) -> Probabilities:
    """Give the good answers."""
    assert len(images) == len(answers)
    return answers


def swap(images: Images, answers: Probabilities) -> Probabilities:
    """Give those of other classes."""
    assert len(images) == len(answers)
    return np.roll(answers, 1, axis=1)


@pytest.fixture
def load_with(exported) -> Callable[..., None]:
    """Load the good version, but run by functions that are given images and the good answers."""
    good = load_version(exported).runtime.predict

    def load(predict=give, alone=give, *, batch_sizes=(1, 2, 4, 32), lanes=1):
        functions = [lambda images, run=run: run(images, good(images)) for run in (predict, alone)]
        runtime = Runtime("fake", "f32", INPUT, OUTPUT, *functions)
        load_model(exported, load_runtime=lambda *_: runtime, batch_sizes=batch_sizes, lanes=lanes)

    return load


def test_every_batch_size_is_run_before_a_client_needs_it(load_with):
    """The first batch of a size takes longer, since kernels are made for it."""
    sizes = []

    def predict(images, answers):
        sizes.append(len(images))
        return answers

    load_with(predict, batch_sizes=[1, 2, 4, 32])
    assert set(sizes) == {1, 2, 4, 32}


def test_every_lane_is_run_before_a_client_needs_it(load_with):
    """All at once, since nothing else says which lane takes a batch."""
    meeting = threading.Barrier(3, timeout=10)

    def predict(images, answers):
        if len(images) == 1:
            meeting.wait()
        return answers

    load_with(predict, batch_sizes=[2, 32], lanes=3)


@pytest.mark.parametrize("size", [1, 2, 4, 32])
def test_kernels_of_one_batch_size_that_are_wrong_refuse_the_version(load_with, size):
    """Golden images are run in batches of every size."""

    def predict(images, answers):
        return swap(images, answers) if len(images) == size else answers

    with pytest.raises(RefusedVersionError, match="other probabilities than at export"):
        load_with(predict)


def test_a_wrong_answer_for_an_image_alone_refuses_the_version(load_with):
    """It goes another way through the runtime."""
    with pytest.raises(RefusedVersionError, match="other probabilities than at export"):
        load_with(alone=swap)


@pytest.mark.parametrize("batch_sizes", [[1], [1, 2, 3], [1, 2, 4, 32]])
@pytest.mark.parametrize("index", [0, 7, 15])
def test_every_golden_image_is_run(exported, load_with, batch_sizes, index):
    """However many fit into the batches."""
    wrong = np.load(exported / "golden.npz")["images"][index]

    def predict(images, answers):
        is_wrong = (images == wrong).all(axis=(1, 2, 3))
        return np.where(is_wrong[:, None], swap(images, answers), answers)

    with pytest.raises(RefusedVersionError, match="other probabilities than at export"):
        load_with(predict, batch_sizes=batch_sizes)


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_model_that_fails_is_refused(load_with, lanes):
    """Whatever the runtime raises."""

    def predict(*_):
        raise RuntimeError("no kernel")

    with pytest.raises(RefusedVersionError, match="no kernel"):
        load_with(predict, lanes=lanes)


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
        load_version(version)


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


def pack(kind: int, content: bytes) -> bytes:
    """Make an archive whose member `images.npy` is packed so."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        archive.writestr("images.npy", content)
    return buffer.getvalue()


def describe(shape: str) -> bytes:
    """Make the head of an array of that shape."""
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head


NOISE = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()


@pytest.mark.parametrize(
    "content",
    [
        pack(zipfile.ZIP_STORED, b"no array"),
        pack(zipfile.ZIP_STORED, describe("(99999999999999999999, 32, 32, 3)")),
        pack(zipfile.ZIP_STORED, describe("((((")),
        *(
            pack(kind, NOISE).replace(packed, packed[::-1])
            for kind in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
            for packed in [pack(kind, NOISE)[200:400]]
        ),
        pack(zipfile.ZIP_STORED, NOISE)
        .replace(b"PK\x03\x04\x14\x00\x00", b"PK\x03\x04\x14\x00\x01")
        .replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
    ],
    ids=["no array", "huge", "brackets", "deflate", "bzip2", "lzma", "encrypted"],
)
def test_golden_images_that_are_damaged_are_refused(version, refuse, content):
    """In whatever way: it is no fault of the program, and no trouble of the volume, after which one tries again."""
    (version / "golden.npz").write_bytes(content)
    seal(version)
    refuse("golden.npz can't be read")


@pytest.mark.parametrize("fails_on", [1, 2])
def test_memory_that_runs_out_says_nothing_of_the_version(load_with, fails_on):
    """It is raised as what it is, so that the version is tried again."""

    def predict(images, answers):
        if len(images) == fails_on:
            raise MemoryError
        return answers

    with pytest.raises(MemoryError):
        load_with(predict)


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


def test_a_copy_elsewhere_is_as_good(exported, tmp_path):
    """A version carries all it needs."""
    shutil.copytree(exported, tmp_path / "1")
    load_version(tmp_path / "1")
