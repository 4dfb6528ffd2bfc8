"""Fake models for the command, and a folder of images."""

import pytest

from app.classify import command
from tests.app.fakes import encode, make_model, tell_brightness, tell_colours


@pytest.fixture
def model(monkeypatch):
    """Classify with a fake model; returns the sizes of its batches."""
    sizes = []

    def predict(images):
        sizes.append(len(images))
        return tell_colours(images)

    monkeypatch.setattr(command, "load_newest", lambda *_: make_model(predict))
    return sizes


@pytest.fixture
def folder(tmp_path):
    """A folder with images in several formats, a subfolder and a text file."""
    (tmp_path / "more").mkdir()
    (tmp_path / "a.png").write_bytes(encode("red"))
    (tmp_path / "b.JPEG").write_bytes(encode("blue", kind="JPEG"))
    (tmp_path / "more" / "c.webp").write_bytes(encode("lime", kind="WEBP"))
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


@pytest.fixture
def familiar(model, monkeypatch):  # noqa: ARG001 -- replaces it
    """Classify with a fake model that has a typicality."""
    monkeypatch.setattr(command, "load_newest", lambda *_: make_model(typicality=tell_brightness))
