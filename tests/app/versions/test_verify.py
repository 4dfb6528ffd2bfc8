"""Behaviour of app.versions.verify, with a real SavedModel."""

import errno
import json
import os
import shutil
import tracemalloc
from pathlib import Path

import pytest

from app.contract import METADATA_FILE, ModelMetadata, TensorSpec
from app.errors import RefusedVersionError
from app.versions.verify import read_metadata
from tests.app.artifacts import load_version
from tests.app.fakes import INPUT, OUTPUT, seal


def test_missing_metadata_are_refused(version, refuse):
    """The folder is incomplete, or not a version."""
    (version / METADATA_FILE).unlink()
    refuse("metadata.json can't be read: No such file")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}', '{"schema_version": 2}'])
def test_corrupt_metadata_are_refused(version, refuse, text):
    """The reason gives the place of the first error."""
    (version / METADATA_FILE).write_text(text)
    refuse("metadata.json is not valid")


@pytest.mark.parametrize("field", sorted(ModelMetadata.model_fields.keys() - {"schema_version", "typicality"}))
def test_incomplete_metadata_are_refused(version, refuse, field):
    """The service guesses nothing about a version."""
    path = version / METADATA_FILE
    metadata = json.loads(path.read_text())
    del metadata[field]
    path.write_text(json.dumps(metadata))
    refuse(f"metadata.json is not valid: {field}: Field required")


@pytest.mark.parametrize(
    ("place", "item"), [("class_names.0", 1), ("input.shape.0", 0), ("output.shape.0", 0), ("typicality.shape.0", 0)]
)
def test_metadata_with_many_errors_take_little_memory(version, place, item):
    """The service itself reads them: an error for each of half a million names would take 600 MB."""
    metadata = json.loads((version / METADATA_FILE).read_text())
    metadata["typicality"] = dict(metadata["output"])
    *path, key, _ = place.split(".")
    (metadata[path[0]] if path else metadata)[key] = [item] * 50_000
    (version / METADATA_FILE).write_text(json.dumps(metadata))
    tracemalloc.start()
    with pytest.raises(RefusedVersionError, match=rf"is not valid: {place}: "):
        read_metadata(version)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_oversized_metadata_are_refused(version, refuse):
    """Before they are read."""
    with (version / METADATA_FILE).open("a") as file:
        file.write(" " * 2**20)
    refuse("larger than")


@pytest.mark.parametrize("what", ["fifo", "device", "link", "folder"])
def test_metadata_in_a_special_file_are_refused(version, refuse, what):
    """Reading one might never end, and would block later versions."""
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
def test_an_unreadable_file_does_not_refuse_a_version(version, monkeypatch, file):
    """A volume's error is raised unchanged, so the version is tried again."""
    open_file = Path.open

    def open_or_fail(path, *args, **options):
        if path.name == file:
            raise OSError(errno.EIO, "Input/output error")
        return open_file(path, *args, **options)

    monkeypatch.setattr(Path, "open", open_or_fail)
    if file == "golden.npz":
        monkeypatch.setattr("app.versions.verify.verify_files", lambda *_: None)
        monkeypatch.setattr("zipfile.ZipFile", open_or_fail)
    with pytest.raises(OSError, match="Input/output error"):
        load_version(version)


def test_duplicate_class_names_are_refused(version, refuse):
    """Answers could not distinguish them."""
    seal(version, class_names=("red", "green", "red"))
    refuse("duplicate class name")


def test_metadata_of_another_version_are_refused(version, refuse):
    """A copy under another number would report the wrong version."""
    seal(version, version=2)
    refuse("says version 2, but the folder is named 1")


def test_a_path_out_of_the_version_is_refused(version, refuse):
    """Versions are untrusted input."""
    metadata = json.loads((version / METADATA_FILE).read_text())
    metadata["files"]["../../etc/passwd"] = "0" * 64
    (version / METADATA_FILE).write_text(json.dumps(metadata))
    refuse("not a plain path")


def test_a_changed_file_is_refused(version, refuse):
    """Even if a single bit differs."""
    variables = version / "variables" / "variables.data-00000-of-00001"
    data = bytearray(variables.read_bytes())
    data[0] ^= 1
    variables.write_bytes(data)
    refuse("digest differs: variables/variables.data")


def test_names_of_files_are_escaped_in_the_reason(version, refuse):
    """They can't forge or fill log lines."""
    for number in range(9):
        (version / f"{number}\n2026 INFO version 3 serves").touch()
    refuse(r"not named in metadata.json: 0\\n2026 INFO version 3 serves, 1.* and 4 more$")


def test_a_missing_file_is_refused(version, refuse):
    """The copy is incomplete."""
    (version / "saved_model.pb").unlink()
    refuse("missing: saved_model.pb")


def test_an_unlisted_file_is_refused(version, refuse):
    """A version contains only what training wrote."""
    (version / "extra.py").write_text("")
    refuse("not named in metadata.json: extra.py")


@pytest.mark.parametrize("target", ["saved_model.pb", "variables"])
def test_a_symbolic_link_is_refused(version, refuse, target):
    """It could lead out of the version."""
    (version / target).rename(version.parent / "elsewhere")
    (version / target).symlink_to(version.parent / "elsewhere")
    refuse("not a regular file")


def test_a_broken_saved_model_is_refused(version, refuse):
    """With another reason than for a changed file."""
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
def test_a_signature_that_differs_from_the_metadata_is_refused(version, refuse, role, shape, reason):
    """Images of the wrong shape never reach a model."""
    spec = {"input": INPUT, "output": OUTPUT}[role]
    seal(version, **{role: TensorSpec(name=spec.name, dtype=spec.dtype, shape=shape)})
    refuse(reason)


def test_a_wrong_number_of_class_names_is_refused(version, refuse):
    """Some probabilities would have no name."""
    seal(version, class_names=("red", "green"))
    refuse("2 class names")


def test_a_copy_of_a_version_loads(exported, tmp_path):
    """It is complete in itself."""
    shutil.copytree(exported, tmp_path / "1")
    load_version(tmp_path / "1")
