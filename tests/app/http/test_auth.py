"""Behaviour of app.http.auth, and of the headers and origins that limit what browsers may do."""

import base64

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from app.main import create_app
from app.settings import Settings
from tests.app.fakes import encode, make_model

KEYS = ("first-key-of-the-test", "second-key-of-the-test")


@pytest.fixture
def client(make_client):
    return make_client(api_keys=KEYS)


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()


@pytest.mark.parametrize(
    "path", ["/predict", "/predict/batch", "/model", "/metrics", "/docs", "/openapi.json", "/no", "/"]
)
def test_every_request_except_probes_needs_a_key(client, path):
    """The answer is 401 whether or not the path exists."""
    response = client.post(path) if path.startswith("/predict") else client.get(path)
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "missing_key"
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert response.headers["www-authenticate"].startswith('Bearer realm="')


def list_challenges(response) -> list[str]:
    return [value.split()[0] for value in response.headers.get_list("www-authenticate")]


def test_a_browser_gets_an_error_page(client):
    """With status 401 and both challenges; `Basic` makes the browser ask for a key."""
    response = client.get("/", headers={"accept": "text/html"})
    assert (response.status_code, response.headers["content-type"]) == (401, "text/html; charset=utf-8")
    assert "An API key is needed" in response.text
    assert list_challenges(response) == ["Bearer", "Basic"]


@pytest.mark.parametrize("accept", ["text/html", "*/*"])
def test_the_basic_challenge_is_left_out_for_scripts(client, accept):
    """The browser's own dialogue would cover the form. Documents, styles, scripts and images get both challenges."""
    for made_for in ("document", "style", "script", "image"):
        mode = "navigate" if made_for == "document" else "no-cors"
        headers = {"accept": accept, "sec-fetch-mode": mode, "sec-fetch-dest": made_for}
        assert list_challenges(client.get("/", headers=headers)) == ["Bearer", "Basic"]
    headers = {"accept": accept, "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}
    assert list_challenges(client.post("/predict", headers=headers)) == ["Bearer"]


def test_the_documentation_says_which_requests_need_a_key(client, make_client):
    """Only if the service has keys."""
    authorization = {"authorization": f"Bearer {KEYS[0]}"}
    document = client.get("/openapi.json", headers=authorization).json()
    assert document["components"]["securitySchemes"]["key"] == {"type": "http", "scheme": "bearer"}
    for path, operations in document["paths"].items():
        status = client.request(next(iter(operations)), path).status_code
        for operation in operations.values():
            assert (status == 401) == ("401" in operation["responses"]) == ("security" in operation), path
    assert "missing_key" not in str(make_client().get("/openapi.json").json())


def test_probes_need_no_key(client):
    """Orchestrators send none."""
    for path in ("/health", "/health/live", "/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200
        assert client.head(path).status_code == 200


@pytest.mark.parametrize(
    "path", ["/healthy", "/health/", "/health/live/", "/health/x", "/v2", "/v2/health", "/x/health"]
)
def test_paths_like_those_of_probes_need_a_key(client, path):
    """Only the exact paths are exempt."""
    assert client.get(path).status_code == 401


def test_probes_need_no_key_under_a_root_path(models):
    """Other paths below the prefix do."""
    app = create_app(Settings(model_dir=models, api_keys=KEYS), load=lambda *_, **__: make_model())
    with TestClient(app, root_path="/api") as client:
        assert client.get("/api/health/live").status_code == 200
        for path in ("/api/model", "/api/x/health/live", "/apihealth/live"):
            assert client.get(path).status_code == 401


def test_a_wrong_key_and_a_missing_one_get_different_errors(client):
    """So that users know what to fix."""
    told = [
        client.get("/model", headers=headers).json()["detail"]
        for headers in ({}, {"authorization": "Bearer of-another-service"})
    ]
    assert [detail.endswith("; the key in this request is not valid") for detail in told] == [False, True]


@pytest.mark.parametrize("value", [f"Bearer {KEYS[0]}", f"bearer {KEYS[1]}", basic(KEYS[0]), basic(KEYS[1])])
def test_every_key_is_accepted(client, value):
    """As a bearer token, or as the password of HTTP Basic."""
    response = client.post("/predict", files={"file": encode("blue")}, headers={"authorization": value})
    assert response.json()["label"] == "blue"


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", f"Bearer {KEYS[0]}x", f"Bearer {KEYS[0][:-1]}", KEYS[0], f"Token {KEYS[0]}", "Bearer ümlaut",
     "Basic !", "Basic é", "Basic " + base64.b64encode(b"\xff:\xff").decode(), basic("wrong"), f"Basic {KEYS[0]}"],
)  # fmt: skip
def test_other_credentials_are_rejected(client, value):
    """A part of a key, a key in another scheme, and invalid encodings."""
    assert client.get("/model", headers={"authorization": value.encode("latin-1")}).status_code == 401


def test_without_keys_no_request_needs_one(make_client):
    """This is the default."""
    assert make_client().get("/model").status_code == 200


def test_keys_are_read_from_the_environment_and_never_shown(monkeypatch):
    """They are separated by commas. Neither `repr` nor an error contains one."""
    monkeypatch.setenv("APP_API_KEYS", f"{KEYS[0]}, {KEYS[1]},")
    settings = Settings()
    assert [key.get_secret_value() for key in settings.api_keys] == list(KEYS)
    assert KEYS[0] not in repr(settings)
    monkeypatch.setenv("APP_API_KEYS", "guessable")
    with pytest.raises(ValidationError, match="at least 16 characters") as error:
        Settings()
    assert "guessable" not in str(error.value.errors(include_input=False))


def test_cors_allows_the_configured_origins_only(make_client):
    """They may send a key, and read `Retry-After`."""
    ask = {"origin": "https://a.example", "access-control-request-method": "POST",
           "access-control-request-headers": "authorization"}  # fmt: skip
    closed = make_client()
    assert "access-control-allow-origin" not in closed.get("/model", headers=ask).headers
    assert closed.options("/predict", headers=ask).status_code == 405
    opened = make_client(cors_origins="https://a.example", api_keys=KEYS)
    answer = opened.options("/predict", headers=ask)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://a.example")
    answer = opened.get("/model", headers={**ask, "authorization": f"Bearer {KEYS[0]}"})
    assert answer.headers["access-control-allow-origin"] == "https://a.example"
    assert "Retry-After" in answer.headers["access-control-expose-headers"]
    # The header of the Open Inference Protocol's binary extension, in requests and answers.
    assert "Inference-Header-Content-Length" in answer.headers["access-control-expose-headers"]
    binary = {**ask, "access-control-request-headers": "inference-header-content-length"}
    assert opened.options("/v2/models/tiny/infer", headers=binary).status_code == 200
    other = opened.options("/predict", headers={**ask, "origin": "https://b.example"})
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("path", ["/health", "/nowhere", "/docs"])
def test_every_answer_has_the_security_headers(make_client, path):
    """No type sniffing, no frames, no use by other sites. Pages may load only this service's files."""
    headers = make_client().get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert ("script-src 'self'" in policy) == (path == "/docs")


def test_an_unexpected_error_has_the_security_headers(make_client, monkeypatch):
    """Starlette answers it outside all other middleware."""
    monkeypatch.setattr("app.api.health.assess", None)
    answer = make_client().get("/health")
    assert answer.status_code == 500
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
