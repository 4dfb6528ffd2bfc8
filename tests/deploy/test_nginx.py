"""The nginx configuration in deploy/, tested with a real nginx and a real service."""

import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.port import find_free_port
from tests.app.nginx import NGINX, run_nginx
from tests.app.process import Process

ROOT = Path(__file__).parents[2]
OPENSSL = shutil.which("openssl") or "openssl"
HOST = "classifier.example.org"
CAT = ROOT / "tests" / "data" / "cat.png"

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: apt-get install nginx)")


class Site(NamedTuple):
    """A running nginx: its ports, and its certificate."""

    http: int
    https: int
    certificate: Path

    def connect(self) -> ssl.SSLSocket:
        """Open a TLS connection to the site by its name."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.https), 10), server_hostname=HOST)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
        """Send a request, and return the response with its body in `content`."""
        connection = http.client.HTTPConnection(HOST)
        connection.sock = self.connect()
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        response.content = response.read()
        connection.close()
        return response


@pytest.fixture(scope="module")
def process() -> Iterator[Process]:
    """The service with its shipped model, on loopback, with the proxy's name as an allowed host."""
    process = Process(model_dir=ROOT / "models", allowed_hosts=HOST, log_format="json", max_batch_size=1)
    process.wait_until("ok")
    yield process
    process.end()


@pytest.fixture(scope="module", params=["stripped", "kept"])
def site(request, process, tmp_path_factory) -> Iterator[Site]:
    """The configuration with test ports and files, and the same with a prefix that is not stripped."""
    folder = tmp_path_factory.mktemp("nginx")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [OPENSSL, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={HOST}",
         "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    site = Site(find_free_port(), find_free_port(), certificate)
    text = (ROOT / "deploy" / "nginx" / "minimodel.conf").read_text(encoding="utf-8")
    changes = {
        "listen 80;": f"listen 127.0.0.1:{site.http};",
        "listen 443 ssl": f"listen 127.0.0.1:{site.https} ssl",
        "server 127.0.0.1:8000;": f"server 127.0.0.1:{process.port};",
        f"/etc/ssl/certs/{HOST}.pem": str(certificate),
        f"/etc/ssl/private/{HOST}.key": str(key),
    }
    if request.param == "kept":
        changes["proxy_pass http://minimodel/;"] = "proxy_pass http://minimodel;"
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    with run_nginx(folder, text, site.https):
        yield site


def test_images_are_classified_below_the_path(site):
    """Over TLS, with the id that nginx gave the request, and the header for HTTPS alone."""
    response = site.ask("POST", "/classifier/predict", CAT.read_bytes(), content_type="image/png")
    assert (response.status, json.loads(response.content)["label"]) == (200, "cat")
    assert response.headers["strict-transport-security"]
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])
    assert site.ask("GET", "/classifier/health").status == 200
    assert site.ask("GET", "/health").status == 404


def test_pages_have_the_sites_path_and_scheme(site):
    """In every link and in the curl line."""
    page = site.ask("GET", "/classifier/", accept="text/html").content.decode()
    links = re.findall(r' (?:href|src|action)="([^"]+)"', page)
    assert links
    assert all(link.startswith("/classifier/") for link in links)
    for link in links:
        assert site.ask("GET", link, accept="text/html").status in {200, 303}, link
    assert json.loads(site.ask("GET", "/classifier/openapi.json").content)["servers"] == [{"url": "/classifier"}]
    body = b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\n" + CAT.read_bytes() + b"\r\n--x--\r\n"
    headers = {"accept": "text/html", "content_type": "multipart/form-data; boundary=x"}
    result = site.ask("POST", "/classifier/predict", body, **headers).content.decode()
    assert f"https://{HOST}/classifier/predict" in result
    again = site.ask("GET", "/classifier/predict", accept="text/html")
    assert (again.status, again.headers["location"]) == (303, "/classifier/")


def test_clients_cannot_forge_their_address(site, process):
    """The proxy overwrites the headers that clients send, and the service logs the real address."""
    response = site.ask("GET", "/classifier/model", x_forwarded_for="192.0.2.77", x_forwarded_prefix="/elsewhere")
    request_id = response.headers["x-request-id"]
    while not (lines := [line for line in process.log if request_id in line]):
        time.sleep(0.01)
    line = json.loads(lines[0])
    assert (line["client"], line["path"]) == ("127.0.0.1", "/classifier/model")


def test_only_the_services_own_pages_may_post(site):
    """Their origin is the site that the browser sees, not the service's address."""
    body, headers = CAT.read_bytes(), {"content_type": "image/png"}
    assert site.ask("POST", "/classifier/predict", body, **headers, origin=f"https://{HOST}").status == 200
    assert site.ask("POST", "/classifier/predict", body, **headers, origin="https://evil.example").status == 403


def test_http_redirects_to_https(site):
    """With the same path."""
    connection = http.client.HTTPConnection("127.0.0.1", site.http, timeout=10)
    connection.request("GET", "/classifier/docs", headers={"host": HOST})
    response = connection.getresponse()
    assert (response.status, response.headers["location"]) == (301, f"https://{HOST}/classifier/docs")
    connection.close()


def test_nginx_and_the_service_limit_sizes(site):
    """The service explains what is slightly too large; nginx stops what is far too large."""
    for size, explained in ((16 * 2**20 + 1, True), (18 * 2**20, False)):
        response = site.ask("POST", "/classifier/predict", bytes(size), content_type="image/png")
        assert response.status == 413
        assert (b"upload_too_large" in response.content) == explained


def test_metrics_are_not_public(site):
    """Prometheus reads them from the service itself."""
    assert site.ask("GET", "/classifier/metrics").status == 404


def test_a_client_has_a_limited_number_of_connections(site):
    """Fifty at a time; the next one gets 429."""
    head = f"POST /classifier/predict HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 9\r\n\r\nx".encode()
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(site.connect()).sendall(head)
        statuses = {site.ask("GET", "/classifier/health").status for _ in range(3)}
    assert statuses == {429}
