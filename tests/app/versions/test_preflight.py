"""Behaviour of app.versions.preflight."""

import sys
from pathlib import Path

import pytest

from app.errors import RefusedVersionError
from app.versions.preflight import probe_graph


@pytest.fixture
def reader(tmp_path, monkeypatch) -> Path:
    """A program that is run in the place of the one that reads."""
    path = tmp_path / "reader"
    path.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    return path


def test_a_good_graph_passes(exported):
    """It is read, and nobody dies."""
    probe_graph(exported)


def test_a_graph_that_is_merely_wrong_passes(version):
    """Who loads it has better words for that."""
    (version / "saved_model.pb").write_bytes(b"not a graph")
    probe_graph(version)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE"])
def test_a_graph_that_kills_its_reader_is_refused(reader, tmp_path, name):
    """By whatever the reader died of."""
    reader.write_text(f"#!/bin/sh\nkill -{name[3:]} $$\n")
    with pytest.raises(RefusedVersionError, match=rf"OpenVINO dies of it \({name}\)"):
        probe_graph(tmp_path)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_reader_that_others_kill_says_nothing_of_the_graph(reader, tmp_path, name):
    """Memory ran out, or the service is being stopped."""
    reader.write_text(f"#!/bin/sh\nkill -{name[3:]} $$\n")
    with pytest.raises(MemoryError, match=name):
        probe_graph(tmp_path)


def test_a_reader_that_fails_says_nothing_of_the_graph(reader, tmp_path):
    """A refusal by OpenVINO is no failure of the reader: what it ended by came from elsewhere."""
    reader.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(MemoryError, match="status 1"):
        probe_graph(tmp_path)


def test_the_reader_is_found_from_everywhere(exported, monkeypatch):
    """The service may have been started elsewhere, with `uvicorn --app-dir`, and its folder be named from there."""
    monkeypatch.chdir(exported.parent)
    probe_graph(Path(exported.name))


def test_a_graph_that_is_never_read_to_its_end_is_refused(reader, tmp_path, monkeypatch):
    """It would keep every later version out."""
    monkeypatch.setattr("app.versions.preflight._TIMEOUT_SECONDS", 0.1)
    reader.write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(RefusedVersionError, match="has not read it in"):
        probe_graph(tmp_path)
