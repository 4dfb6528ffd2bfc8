"""Requests to the API, and checks of its problem details."""

from fastapi.testclient import TestClient


def predict(client: TestClient, data: bytes, name: str = "image.png", query: str = ""):
    return client.post(f"/predict{query}", files={"file": (name, data)})


def check_problem(response, status: int, code: str) -> str:
    """Check that `response` is a problem of this kind; return its detail."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == "about:blank"
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["title"]
    assert problem["request_id"] == response.headers["x-request-id"]
    return problem["detail"]
