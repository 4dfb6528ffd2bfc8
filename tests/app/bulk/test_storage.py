"""Behaviour of app.bulk.storage."""

import pyarrow as pa
import pytest

from app.bulk.storage import TEMPORARY_FOLDER, JobError, describe, locate, write_file


def test_a_relative_path_is_of_the_current_folder(tmp_path, monkeypatch):
    """Absolute, so that it is the same for workers, and for a run from elsewhere."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "photos/", "./x/../photos", f"file://{tmp_path}/photos"):
        location = locate(name)
        assert (str(location), location.is_local) == (f"{tmp_path}/photos", True)


def test_a_url_keeps_its_scheme_but_no_secrets():
    """What is written into results names the object, not the key to it."""
    location = locate("s3://key:secret@bucket/photos/?region=eu-west-1")
    assert (str(location), location.name("bucket/a.jpg")) == ("s3://bucket/photos", "s3://bucket/a.jpg")
    assert not location.is_local


@pytest.mark.parametrize("name", ["ftp://host/photos", "s3://bucket/a b"])
def test_a_url_that_is_none_is_one_line(name):
    with pytest.raises(JobError, match=f"^{name}: .*URI") as caught:
        locate(name)
    assert "\n" not in str(caught.value)


def test_a_long_message_is_shortened():
    """The Java bridge of hdfs:// lists a hundred places where Java is not."""
    assert describe(OSError("\nUnable to load libjvm\ndlopen(/usr/lib/jvm) failed\n" * 50)) == "Unable to load libjvm"
    text = describe(OSError("x" * 1000))
    assert (len(text), text[-2:]) == (400, "x…")
    assert describe(OSError()) == ""


def test_a_file_is_written_whole(tmp_path):
    """It replaces an earlier one, and nothing else is left."""
    folder = locate(str(tmp_path))
    (tmp_path / TEMPORARY_FOLDER).mkdir()
    for text in (b"first", b"second"):
        write_file(folder, "part", text)
        assert (tmp_path / "part").read_bytes() == text
    assert list((tmp_path / TEMPORARY_FOLDER).iterdir()) == []


def test_a_file_that_can_not_be_written_is_not_there(tmp_path):
    """An earlier one stays."""
    (tmp_path / "part").write_bytes(b"first")
    with pytest.raises(OSError, match="No such file"):  # there is no folder for temporary files
        write_file(locate(str(tmp_path)), "part", b"second")
    assert (tmp_path / "part").read_bytes() == b"first"


def test_a_remote_file_system_has_as_many_connections_as_are_used():
    """By default pyarrow gives it as many as it has threads for reading."""
    before = pa.io_thread_count()
    try:
        locate("s3://bucket/photos?region=eu-west-1", connections=40)
        assert pa.io_thread_count() == 40
    finally:
        pa.set_io_thread_count(before)
