"""Behaviour of app.versions.loader."""

import pytest

from app.errors import RefusedVersionError
from app.settings import Settings
from app.versions.loader import make_loader


@pytest.fixture
def tried(monkeypatch) -> list[dict]:
    """The arguments of the preflight."""
    requests: list[dict] = []
    monkeypatch.setattr("app.versions.loader.run_preflight", lambda _, **given: requests.append(given))
    return requests


def test_every_version_has_a_preflight_with_the_runtime_and_batches_of_the_service(exported, tried):
    """With the precision that `auto` resolves to, and the memory limit from the settings."""
    settings = Settings(precision="f32", max_model_memory_bytes=2**27)
    assert make_loader(settings, batch_sizes=[1, 2])(exported).metadata.name == "tiny"
    [request] = tried
    assert request.pop("background") is False
    assert request == {"runtime": "openvino", "precision": "f32", "batch_sizes": [1, 2], "memory_bytes": 2**27}


def test_a_preflight_runs_in_the_background_while_another_version_serves(exported, tried):
    """At the start, it runs with normal priority, because nothing serves yet."""
    load = make_loader(Settings(precision="f32"), batch_sizes=[1])
    for _ in range(3):
        load(exported)
    assert [request["background"] for request in tried] == [False, True, True]


def test_a_changed_version_has_no_preflight(version, tried):
    """A graph with a wrong digest is never read."""
    (version / "saved_model.pb").write_bytes(b"half written")
    with pytest.raises(RefusedVersionError, match="digest differs"):
        make_loader(Settings(), batch_sizes=[1, 2])(version)
    assert tried == []


@pytest.mark.parametrize("trouble", [RefusedVersionError("crashes"), MemoryError("killed"), OSError(12, "none")])
def test_a_version_whose_preflight_fails_is_not_loaded(exported, monkeypatch, trouble):
    """The error is raised unchanged: only RefusedVersionError refuses the version."""

    def fail(*_, **__):
        raise trouble

    monkeypatch.setattr("app.versions.loader.run_preflight", fail)
    monkeypatch.setattr("app.versions.loader.load_runtime", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(type(trouble)):
        make_loader(Settings(), batch_sizes=[1])(exported)
