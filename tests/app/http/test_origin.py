"""Behaviour of app.http.origin: the hosts that are served, and the sites whose pages may send requests."""

import pytest
from fastapi.testclient import TestClient

from app.settings import Settings
from tests.app.client import check_problem
from tests.app.fakes import encode


def get(client: TestClient, host: str, path: str = "/model") -> int:
    return client.get(path, headers={"host": host}).status_code


@pytest.fixture
def client(make_client, monkeypatch) -> TestClient:
    """A service with the default hosts for loopback."""
    monkeypatch.delenv("APP_ALLOWED_HOSTS")
    client = make_client(host="127.0.0.1", allowed_hosts="testserver,localhost,*.localhost,127.0.0.1,::1")
    client.base_url = "http://localhost"
    return client


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.0.0.5"])
def test_the_default_hosts_follow_the_address(monkeypatch, host):
    """Loopback's names on loopback; on any other address, all names."""
    monkeypatch.delenv("APP_ALLOWED_HOSTS")
    assert {"localhost", "127.0.0.1", "::1", host.strip("[]")} <= set(Settings(host=host).served_hosts)
    assert "*" not in Settings(host=host).served_hosts
    assert Settings(host="0.0.0.0").served_hosts == Settings(host="192.0.2.1").served_hosts == ("*",)  # noqa: S104
    assert Settings(host=host, allowed_hosts="Example.org, [::1]").served_hosts == ("example.org", "::1")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "a.localhost"])
def test_known_hosts_are_served(client, host):
    """With any port, in any case."""
    assert get(client, host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evillocalhost",
        "192.0.2.1",
        "",
        "[::2]",
        "localhost@evil.example",
        "[",
    ],
)
def test_an_unknown_host_is_refused(client, host):
    """This prevents DNS rebinding, in which a page reaches the service by its own name."""
    response = client.get("/model", headers={"host": host})
    detail = check_problem(response, 400, "unknown_host")
    assert "APP_ALLOWED_HOSTS" in detail
    response = client.post("/predict", files={"file": encode()}, headers={"host": host})
    assert response.status_code == 400


@pytest.mark.parametrize("path", ["/health", "/health/live", "/v2/health/ready", "/metrics"])
def test_probes_may_use_an_address_as_host(client, path):
    """Like kubelet's and Prometheus's, or have no Host. Unknown names are still refused."""
    for host in ("10.1.2.3:8000", "[fd00::7]:8000", "192.0.2.1", ""):
        assert get(client, host, path) == 200
    assert get(client, "evil.example", path) == 400


def test_hosts_are_a_setting(make_client):
    """Exact names, or all names below a domain, which excludes the domain itself."""
    client = make_client(allowed_hosts="example.org,*.example.net")
    client.base_url = "http://example.org"
    assert [get(client, host) for host in ("example.org", "a.example.net", "a.b.example.net:80")] == [200, 200, 200]
    assert [get(client, host) for host in ("a.example.org", "example.net", "testserver")] == [400, 400, 400]


@pytest.mark.parametrize("value", ["https://example.org", "example.org:80", "a b", "*example.org", "a.*.org", "/"])
def test_an_invalid_host_is_refused_as_a_setting(value):
    """It would never match."""
    with pytest.raises(ValueError, match="without a port"):
        Settings(allowed_hosts=value)


FORM = {"files": {"file": encode("blue")}}
CROSS = [
    {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
    {"sec-fetch-site": "same-site", "origin": "http://localhost:3000"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "cross-site", "origin": "null"},
    {"origin": "https://evil.example"},
    {"origin": "http://localhost:3000"},
    {"origin": "null"},
    {"origin": "http://["},
]
OWN = [
    {},
    {"sec-fetch-site": "same-origin", "origin": "http://localhost"},
    {"sec-fetch-site": "none"},
    {"origin": "http://localhost"},
    {"origin": "https://localhost"},  # a proxy terminates TLS
    {"origin": "https://localhost", "host": "localhost:443"},
    {"origin": "http://localhost:8000", "host": "localhost:8000"},
]


@pytest.mark.parametrize("headers", CROSS)
@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/v2/models/tiny/infer", "/v1/models/tiny:predict"])
def test_pages_of_other_sites_cannot_post(client, headers, path):
    """To any endpoint. The error names the setting that allows them."""
    response = client.post(path, **FORM, headers=headers)
    assert "APP_CORS_ORIGINS" in check_problem(response, 403, "cross_site")


@pytest.mark.parametrize("headers", OWN)
def test_the_services_own_pages_and_programs_can_post(client, headers):
    """Programs send neither header."""
    assert client.post("/predict", **FORM, headers=headers).json()["label"] == "blue"


@pytest.mark.parametrize("headers", CROSS)
def test_any_site_may_link_to_the_service(client, headers):
    """GET requests change nothing, and browsers hide the answers from other sites."""
    assert client.get("/model", headers=headers).status_code == 200


def test_configured_origins_may_post(make_client):
    """`*` allows all of them."""
    client = make_client(cors_origins="https://a.example")
    for headers, status in (
        ({"sec-fetch-site": "cross-site", "origin": "https://a.example"}, 200),
        ({"origin": "https://a.example"}, 200),
        ({"sec-fetch-site": "cross-site", "origin": "https://b.example"}, 403),
    ):
        assert client.post("/predict", **FORM, headers=headers).status_code == status
    for headers in CROSS:
        assert make_client(cors_origins="*").post("/predict", **FORM, headers=headers).status_code == 200
