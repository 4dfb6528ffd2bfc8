"""Behaviour of app.versions.golden and of the warm-up, with a real SavedModel."""

import io
import threading
import zipfile
from collections.abc import Callable

import numpy as np
import pytest

from app.errors import RefusedVersionError
from app.runtime.load import Answers, Images, Probabilities, Runtime
from app.versions.verify import load_model
from tests.app.artifacts import load_version, rewrite_golden
from tests.app.fakes import INPUT, OUTPUT, seal


def give(images: Images, answers: Probabilities) -> Probabilities:
    """Return the golden answers."""
    assert len(images) == len(answers)
    return answers


def swap(images: Images, answers: Probabilities) -> Probabilities:
    """Return the golden answers with their classes in another order."""
    assert len(images) == len(answers)
    return np.roll(answers, 1, axis=1)


@pytest.fixture
def load_with(exported) -> Callable[..., None]:
    """Load the version with functions that get the images and the golden answers."""
    good = load_version(exported).runtime.predict

    def load(predict=give, alone=give, *, batch_sizes=(1, 2, 4, 32), workers=1):
        def answer_with(run):
            return lambda images: Answers(run(images, good(images).probabilities))

        runtime = Runtime("fake", "f32", INPUT, OUTPUT, answer_with(predict), answer_with(alone))
        load_model(exported, load_runtime=lambda *_: runtime, batch_sizes=batch_sizes, workers=workers)

    return load


def test_every_batch_size_is_warmed(load_with):
    """The first batch of a size takes longer, because its kernels are compiled."""
    sizes = []

    def predict(images, answers):
        sizes.append(len(images))
        return answers

    load_with(predict, batch_sizes=[1, 2, 4, 32])
    assert set(sizes) == {1, 2, 4, 32}


def test_every_worker_is_warmed(load_with):
    """All at the same time, because nobody can choose which worker gets a batch."""
    meeting = threading.Barrier(3, timeout=10)

    def predict(images, answers):
        if len(images) == 1:
            meeting.wait()
        return answers

    load_with(predict, batch_sizes=[2, 32], workers=3)


@pytest.mark.parametrize("size", [1, 2, 4, 32])
def test_wrong_answers_at_one_batch_size_are_refused(load_with, size):
    """Golden images run in batches of every size."""

    def predict(images, answers):
        return swap(images, answers) if len(images) == size else answers

    with pytest.raises(RefusedVersionError, match="other probabilities than at export"):
        load_with(predict)


def test_wrong_answers_for_lone_images_are_refused(load_with):
    """The runtime runs them in another way."""
    with pytest.raises(RefusedVersionError, match="other probabilities than at export"):
        load_with(alone=swap)


@pytest.mark.parametrize("batch_sizes", [[1], [1, 2, 3], [1, 2, 4, 32]])
@pytest.mark.parametrize("index", [0, 7, 15])
def test_every_golden_image_is_run(exported, load_with, batch_sizes, index):
    """Even if their number does not fit the batches."""
    wrong = np.load(exported / "golden.npz")["images"][index]

    def predict(images, answers):
        is_wrong = (images == wrong).all(axis=(1, 2, 3))
        return np.where(is_wrong[:, None], swap(images, answers), answers)

    with pytest.raises(RefusedVersionError, match="other probabilities than at export"):
        load_with(predict, batch_sizes=batch_sizes)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_model_is_refused(load_with, workers):
    """Whatever the runtime raises."""

    def predict(*_):
        raise RuntimeError("no kernel")

    with pytest.raises(RefusedVersionError, match="no kernel"):
        load_with(predict, workers=workers)


def test_wrong_golden_answers_are_refused(version, refuse):
    """The loaded model is not the exported one."""
    rewrite_golden(version, probabilities=np.full((16, 3), 1 / 3, dtype=np.float32))
    refuse("other probabilities than at export")


def test_golden_answers_with_nan_are_refused(version, refuse):
    """Every comparison with NaN is false."""
    rewrite_golden(version, probabilities=np.full((16, 3), np.nan, dtype=np.float32))
    refuse("other probabilities than at export")


def test_golden_images_of_another_shape_are_refused(version, refuse):
    """They were not made for this model."""
    rewrite_golden(version, images=np.zeros((16, 9, 9, 3), dtype=np.uint8))
    refuse("don't fit the model")


@pytest.mark.parametrize("count", [0, 257])
def test_no_or_too_many_golden_images_are_refused(version, refuse, count):
    """None would verify nothing, and too many would delay the start."""
    rewrite_golden(
        version,
        images=np.zeros((count, *INPUT.shape), dtype=np.uint8),
        probabilities=np.zeros((count, 3), dtype=np.float32),
    )
    refuse("don't fit the model")


def test_oversized_golden_images_are_refused(version, refuse):
    """A few bytes of zip can unpack to gigabytes."""
    np.savez_compressed(version / "golden.npz", images=np.zeros(65 * 2**20, dtype=np.uint8))
    seal(version)
    refuse("unpacks to more than")


def test_golden_images_are_never_unpickled(version, refuse):
    """A pickle can run code."""
    np.savez(version / "golden.npz", images=np.array([{}]), probabilities=np.zeros(1))
    seal(version)
    refuse("golden.npz can't be read")


@pytest.mark.parametrize("content", [None, b"", b"PK garbage"])
def test_missing_golden_images_are_refused(version, refuse, content):
    """A version that can't be verified must not serve."""
    (version / "golden.npz").unlink()
    if content is not None:
        (version / "golden.npz").write_bytes(content)
    seal(version)
    refuse("golden.npz can't be read")


def pack(kind: int, content: bytes) -> bytes:
    """Make an archive with a member `images.npy`, compressed with this method."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        archive.writestr("images.npy", content)
    return buffer.getvalue()


def describe(shape: str) -> bytes:
    """Make the header of an array of this shape."""
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
def test_damaged_golden_images_are_refused(version, refuse, content):
    """Whatever NumPy or zipfile raises; a failing volume would not refuse the version."""
    (version / "golden.npz").write_bytes(content)
    seal(version)
    refuse("golden.npz can't be read")


@pytest.mark.parametrize("fails_on", [1, 2])
def test_running_out_of_memory_does_not_refuse_a_version(load_with, fails_on):
    """The error is raised unchanged, so the version is tried again."""

    def predict(images, answers):
        if len(images) == fails_on:
            raise MemoryError
        return answers

    with pytest.raises(MemoryError):
        load_with(predict)
