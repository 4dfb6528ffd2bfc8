"""Behaviour of the probes: app.api.health."""

import threading

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.app.client import check_problem, predict
from tests.app.fakes import encode, make_model, wait_until_loaded


def test_health_names_the_model(client):
    """`/health` answers 200 with the model, the runtime and the refused versions, once a model serves."""
    response = client.get("/health")
    assert response.status_code == 200
    assert response.json() == {
        "status": "ok",
        "model": {"name": "tiny", "version": 1},
        "runtime": {"name": "fake", "precision": "f32"},
        "refused": [],
    }
    assert client.get("/health/live").json() == {"status": "alive"}


@pytest.mark.parametrize("path", ["/health", "/health/live"])
def test_probes_accept_head(client, path):
    """HEAD gets the status and headers of GET without the body, because some load balancers only send HEAD."""
    for client.app.state.draining in (False, True):
        expected, answer = client.get(path), client.head(path)
        assert (answer.status_code, answer.content) == (expected.status_code, b"")
        for name in ("content-type", "content-length", "retry-after"):
            assert answer.headers.get(name) == expected.headers.get(name)
    assert expected.status_code == (503 if path == "/health" else 200)


def test_without_a_model_only_liveness_succeeds(tmp_path):
    """The service starts, and all other requests get 503 with the reason."""
    with TestClient(create_app(Settings(model_dir=tmp_path / "none"))) as client:
        wait_until_loaded(client)
        response = client.get("/health")
        assert (response.status_code, response.json()["status"]) == (503, "unavailable")
        assert "none is not a folder" in response.json()["reason"]
        assert int(response.headers["retry-after"]) > 0
        assert client.get("/health/live").status_code == 200
        for response in (predict(client, encode()), client.get("/model")):
            assert "is not a folder" in check_problem(response, 503, "not_ready")
            assert response.headers["retry-after"] == str(response.json()["retry_after_seconds"])


def test_requests_get_503_while_the_model_loads(models):
    """`/health` says `starting`, and requests get 503 until the model serves."""
    opened = threading.Event()
    app = create_app(Settings(model_dir=models), load=lambda *_, **__: opened.wait(10) and make_model())
    with TestClient(app) as client:
        response = client.get("/health")
        assert (response.status_code, response.json()["status"]) == (503, "starting")
        check_problem(predict(client, encode()), 503, "not_ready")
        opened.set()
        wait_until_loaded(client)
        assert predict(client, encode()).status_code == 200


def test_health_lists_refused_versions(models):
    """With the reason, whether or not an older version serves."""
    with TestClient(create_app(Settings(model_dir=models))) as client:
        wait_until_loaded(client)
        health = client.get("/health").json()
        assert health["status"] == "unavailable"
        assert health["refused"] == [{"version": 1, "reason": "metadata.json can't be read: No such file or directory"}]


def test_requests_are_served_while_health_says_draining(client):
    """Every answer closes its connection, so that the client's next request reaches another process."""
    assert "connection" not in client.get("/health").headers
    client.app.state.draining = True
    response = client.get("/health")
    assert (response.status_code, response.json()["status"]) == (503, "draining")
    assert int(response.headers["retry-after"]) > 0
    response = predict(client, encode())
    assert response.status_code == 200
    assert response.headers["connection"] == "close"
