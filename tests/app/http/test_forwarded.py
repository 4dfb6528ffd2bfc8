"""Behaviour of app.http.forwarded and app.http.paths: the headers of reverse proxies."""

import json
import logging

import pytest
from fastapi.testclient import TestClient
from starlette.types import Receive, Scope, Send

from app.http.forwarded import Forwarded
from app.main import create_app
from app.settings import Settings
from tests.app.client import predict
from tests.app.fakes import encode, make_model, wait_until_loaded

pytestmark = pytest.mark.anyio
PROXY = "10.0.0.7"


async def forward(peer: str | None, headers: dict[str, str], path: str = "/model", **options: object) -> Scope:
    """Return the scope that the application sees of a request."""
    seen: Scope = {}

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.update(scope)

    scope = {
        "type": "http",
        "path": path,
        "root_path": "",
        "scheme": "http",
        "client": (peer, 1234) if peer else None,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
    }
    await Forwarded(app, **{"trusted": [PROXY], "root_path": "", **options})(scope, None, None)
    return seen


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("203.0.113.5:4711", "203.0.113.5"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%" + "x" * 10_000, "fe80::1"),
        ("198.51.100.1, 203.0.113.5", "203.0.113.5"),  # the first one came from the client
        ("203.0.113.5, 10.0.0.7", "203.0.113.5"),
        ("10.0.0.7, 127.0.0.1", "10.0.0.7"),
        ("nonsense, 203.0.113.5", "203.0.113.5"),
        ("203.0.113.5, nonsense", PROXY),
        ("x" * 10_000, PROXY),
        ("", PROXY),
    ],
)
async def test_the_client_is_the_last_address_before_the_trusted_proxies(said, client):
    """Anything that is not an address is ignored."""
    assert (await forward(PROXY, {"x-forwarded-for": said}))["client"][0] == client


@pytest.mark.parametrize("peer", ["203.0.113.9", "testclient", None])
async def test_headers_from_untrusted_peers_are_ignored(peer):
    """The address, the scheme and the prefix."""
    headers = {"x-forwarded-for": "192.0.2.1", "x-forwarded-proto": "https", "x-forwarded-prefix": "/x"}
    scope = await forward(peer, headers)
    assert (scope["client"], scope["scheme"]) == ((peer, 1234) if peer else None, "http")
    assert (scope["root_path"], scope["path"]) == ("", "/model")


@pytest.mark.parametrize(
    ("peer", "trusted"), [("127.0.0.1", []), ("::1", []), ("10.9.9.9", ["10.0.0.0/8"]), ("10.9.9.9", ["*"])]
)
async def test_trusted_proxies_are_addresses_or_networks(peer, trusted):
    """Loopback is always trusted."""
    scope = await forward(peer, {"x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.5"}, trusted=trusted)
    assert (scope["scheme"], scope["client"][0]) == ("https", "203.0.113.5")


@pytest.mark.parametrize(
    ("prefix", "path", "expected"),
    [
        ("/api", "/model", ("/api", "/api/model")),
        ("/api", "/api/model", ("/api", "/api/model")),
        ("/api", "/api", ("/api", "/api")),
        ("/api/", "/apis", ("/api", "/api/apis")),
        ("/a/b", "/", ("/a/b", "/a/b/")),
        ("/a, /b", "/model", ("/a/b", "/a/b/model")),
        ("/", "/model", ("", "/model")),
        ("//evil.example", "/model", ("", "/model")),
        ("/../x", "/model", ("", "/model")),
        ('/"><script>', "/model", ("", "/model")),
        ("https://evil.example", "/model", ("", "/model")),
        ("/" + "x" * 5000, "/model", ("", "/model")),
    ],
)
async def test_a_prefix_becomes_the_root_path(prefix, path, expected):
    """Whether or not the proxy stripped it from the path. An invalid prefix is ignored."""
    scope = await forward(PROXY, {"x-forwarded-prefix": prefix}, path)
    assert (scope["root_path"], scope["path"]) == expected


async def test_the_prefix_can_be_a_setting():
    """For proxies that don't send it. A header takes precedence."""
    scope = await forward("203.0.113.9", {}, root_path="/api")
    assert (scope["root_path"], scope["path"]) == ("/api", "/api/model")
    scope = await forward(PROXY, {"x-forwarded-prefix": "/other"}, root_path="/api")
    assert (scope["root_path"], scope["path"]) == ("/other", "/other/model")


@pytest.fixture
def client(models):
    """A service with a prefix and a key."""
    settings = Settings(model_dir=models, root_path="/classifier/", api_keys="a-long-enough-key")
    with TestClient(create_app(settings, load=lambda *_, **__: make_model())) as client:
        wait_until_loaded(client)
        client.headers["authorization"] = "Bearer a-long-enough-key"
        yield client


@pytest.mark.parametrize("prefix", ["", "/classifier"])
def test_a_service_with_a_prefix_answers_with_and_without_it(client, prefix):
    """So the proxy may strip the prefix, and probes may bypass the proxy."""
    for path in ("/health", "/health/live", "/v2/health/ready"):
        assert client.get(prefix + path, headers={"authorization": ""}).status_code == 200
    assert client.get(f"{prefix}/model", headers={"authorization": ""}).status_code == 401
    response = client.post(f"{prefix}/predict", files={"file": encode("blue")})
    assert response.json()["label"] == "blue"
    assert client.get(f"{prefix}/openapi.json").json()["servers"] == [{"url": "/classifier"}]
    response = client.get(f"{prefix}/predict", headers={"accept": "text/html"}, follow_redirects=False)
    assert response.headers["location"] == "/classifier/"
    assert "error" in client.post(f"{prefix}/v2/nowhere").json()
    assert "see /classifier/docs" in client.get(f"{prefix}/nowhere").json()["detail"]


@pytest.mark.parametrize("path", ["/", "/docs", "/nowhere", "/web/nowhere", "/predict"])
@pytest.mark.parametrize("prefix", ["", "/classifier"])
def test_every_address_in_a_page_has_the_prefix(client, prefix, path):
    """Links, files, forms, errors and the curl line."""
    headers = {"accept": "text/html"}
    if path == "/predict":
        page = client.post(prefix + path, files={"file": encode()}, headers=headers).text
        assert "http://testserver/classifier/predict" in page
    else:
        page = client.get(prefix + path, headers=headers).text
    addresses = [
        part.split('"')[0]
        for name in ("href", "src", "action", "data-openapi")
        for part in page.split(f' {name}="')[1:]
    ]
    assert addresses
    assert {address for address in addresses if not address.startswith(("/classifier/", "data:"))} == set()
    assert not [address for address in addresses if address.startswith("/classifier/web/web")]


@pytest.mark.parametrize("path", ["/predict/", "/predict//"])
def test_a_trailing_slash_is_ignored(client, path):
    """Without a redirect, which some clients don't follow and others follow without the body."""
    response = predict(client, encode("blue"))
    for prefix in ("", "/classifier"):
        again = client.post(prefix + path, files={"file": encode("blue")}, follow_redirects=False)
        assert (again.status_code, again.json()) == (200, response.json())


def test_every_path_may_have_a_trailing_slash(client):
    """Paths that don't exist still get 404."""
    for path in ("/health/live/", "/model/", "/metrics/", "/openapi.json/", "/v2/", "/v2/models/tiny/", "/docs/"):
        assert client.get(path, follow_redirects=False).status_code == 200, path
    for path in ("/nowhere/", "/nowhere//", "/predict/x/"):
        assert client.post(path).status_code == 404
    assert client.get("/classifier", follow_redirects=False).status_code == 200
    assert client.get("/model/card", follow_redirects=False).headers["location"] == "/classifier/model/card/"


def test_only_addresses_are_logged_as_the_client(client, caplog):
    """Other text is dropped, even if the server itself put it into the scope."""
    caplog.set_level(logging.INFO, "app.request")
    transport = TestClient(client.app, client=("y" * 50_000, 0))
    transport.get("/nowhere", headers={"x-forwarded-for": "x" * 50_000})
    TestClient(client.app, client=("127.0.0.1", 9)).get("/nowhere", headers={"x-forwarded-for": "192.0.2.3"})
    first, second = (record for record in caplog.records if record.name == "app.request")
    assert not hasattr(first, "client")
    assert second.client == "192.0.2.3"
    assert len(json.dumps(vars(first), default=str)) < 2000
