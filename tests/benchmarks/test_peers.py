"""The peers that have more than one process, where `make bench` has installed them."""

from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from benchmarks.peers import artifact
from benchmarks.pictures import ROOT, Known
from benchmarks.process import running
from benchmarks.services import list_services

BENCH = ROOT / ".venv-bench"
FOLDERS = {"ray-serve": BENCH, "mlserver": BENCH / "mlserver"}
CAT = Path(__file__).parents[1] / "data" / "cat.png"


@pytest.fixture
def known(monkeypatch):
    """The photo of a cat, with the answer of the model in this process."""
    monkeypatch.setenv("PEER_RUNTIME", "openvino")
    monkeypatch.setenv("PEER_PRECISION", "f32")
    data = CAT.read_bytes()
    answer = artifact.describe(artifact.load(warm=())(artifact.decode(data)[None])[0])
    return Known(data, answer["label"], answer["probability"])


@pytest.mark.skipif(not all(map(Path.exists, FOLDERS.values())), reason="not installed: the peers (make bench)")
@pytest.mark.parametrize("name", FOLDERS)
def test_a_peer_starts_classifies_and_ends(known, name):
    """It answers the cat like the model itself, for each kind of body, and leaves no process behind."""
    assert known.label == "cat"
    service = next(service for service in list_services("f32") if service.name == name)
    with running(replace(service, python=str(FOLDERS[name] / "bin" / "python"))) as process:
        process.wait_until_right(known)
        for body in service.bodies:
            process.check(known, body)
        started = process._list_tree()
    assert len(started) > 1
    assert not [child for child in started if psutil.pid_exists(child.pid)]
