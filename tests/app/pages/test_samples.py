"""Behaviour of app.pages.samples."""

import json

import pytest

from app.pages.samples import find_sample, list_samples


@pytest.fixture
def version(tmp_path):
    """A version's folder, with a folder for samples beside it."""
    (tmp_path / "samples").mkdir()
    (tmp_path / "1").mkdir()
    return tmp_path / "1"


def write_index(version, *files, **fields):
    samples = version.parent / "samples"
    for file in files:
        if "/" not in file:
            (samples / file).write_bytes(b"picture")
    index = [{"file": file, "title": "A thing", "credit": "somebody", **fields} for file in files]
    (samples / "samples.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "name",
    [
        "a.png",
        "IMG_0001.JPG",
        "my dog.jpeg",
        "a.b.webp",
        "caf\N{LATIN SMALL LETTER E WITH ACUTE} 1.avif",
        "x.bmp",
        "y.gif",
    ],
)
def test_a_sample_may_have_any_suffix_of_a_supported_format(version, name):
    """In upper or lower case."""
    write_index(version, name)
    assert [sample.file for sample in list_samples(version)] == [name]
    assert find_sample(version, name) == version.parent / "samples" / name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../1/metadata.png", "file: it is not the plain name of a file in the samples folder"),
        (".hidden.png", "file: it is not the plain name"),
        ("notes.txt", "file: its name ends in none of .apng, .avif"),
    ],
)
def test_a_bad_entry_is_skipped_and_logged(version, caplog, name, reason):
    """The other samples are shown."""
    write_index(version, "a.png", name, "b.png")
    assert [sample.file for sample in list_samples(version)] == ["a.png", "b.png"]
    (record,) = caplog.records
    assert f"samples.json: entry 2 is left out: {reason}" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_the_log_names_a_missing_file_or_field(version, caplog):
    """So that the author of the index can fix it."""
    write_index(version, "a.png", "b.png")
    (version.parent / "samples" / "a.png").unlink()
    assert [sample.file for sample in list_samples(version)] == ["b.png"]
    (version.parent / "samples" / "samples.json").write_text('[{"file": "b.png", "title": "B"}]')
    assert list_samples(version) == []
    assert [record.getMessage().split("left out: ")[1] for record in caplog.records] == [
        f"a.png is not a file in {version.parent / 'samples'}",
        "credit: Field required",
    ]


@pytest.mark.parametrize("text", ["", "{}", "[1"])
def test_an_invalid_index_is_logged(version, caplog, text):
    """The page has no samples then."""
    (version.parent / "samples" / "samples.json").write_text(text)
    assert list_samples(version) == []
    assert "samples.json can't be read: " in caplog.text
