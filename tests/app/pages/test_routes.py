"""Behaviour of app.pages over HTTP. tests/page tests the pages in a browser."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.contract import Metrics, digest_files
from app.main import create_app
from app.pages.card import render_markdown
from app.pages.render import CONTENT_POLICY, WEB
from app.runtime.load import Answers, Runtime
from app.settings import Settings
from app.versions.model import Model
from tests.app.fakes import (
    INPUT,
    OUTPUT,
    encode,
    make_metadata,
    tell_brightness,
    tell_colours,
    wait_until_loaded,
    write_version,
)

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.fixture
def version(tmp_path):
    return write_version(tmp_path)


@contextmanager
def serve(version: Path, **changes: object) -> Iterator[TestClient]:
    """Start a service with a version that has a card and samples, with `changes` to its metadata."""
    metadata = make_metadata(1, digest_files(version)).model_copy(update=changes)
    model = Model(
        metadata, Runtime("fake", "f32", INPUT, OUTPUT, lambda images: Answers(tell_colours(images))), version
    )
    app = create_app(Settings(model_dir=version.parent), load=lambda *_, **__: model)
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until_loaded(client)
        yield client


@pytest.fixture
def client(version):
    with serve(version) as client:
        yield client


def read_words(response) -> str:
    """Return a page's text without its markup."""
    return " ".join(re.sub(r"<[^>]+>", " ", response.text).split())


def test_the_home_page_describes_the_model(client):
    """Its version, accuracy and classes, from the metadata."""
    response = client.get("/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    words = read_words(response)
    assert "One of 3 things, from 6 × 8 pixels: red, green or blue." in words
    assert "tiny 1 is right about 100.0 % of the 1 test pictures of none." in words


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({}, "tiny 1 was trained on none."),
        ({"accuracy": None}, "tiny 1 was trained on none."),
        ({"accuracy": 0.5, "accuracy_interval": None}, "is right about 50.0 % of the 1 test pictures of none."),
        ({"accuracy": 0.5, "accuracy_interval": [0.4, 0.6]}, "of none (95 % interval 40.0 to 60.0 %)."),
    ],
)
def test_the_home_page_shows_the_known_accuracy(version, metrics, said):
    """A version may lack an interval, or any accuracy."""
    with serve(version, metrics=Metrics.model_validate(metrics)) as client:
        assert said in read_words(client.get("/"))


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (BROWSER["accept"], True), ("text/html", True), ("*/*", False), (None, False), ("application/json", False),
        ("application/json, text/html", False),
    ],
)  # fmt: skip
def test_only_clients_that_accept_html_get_it(client, accept, html):
    """Others get JSON, answers and errors alike."""
    kind = "text/html; charset=utf-8" if html else "application/json"
    problem = "text/html; charset=utf-8" if html else "application/problem+json"
    headers = {"accept": accept} if accept else {}
    if accept is None:
        client.headers.pop("accept", None)
    response = client.post("/predict", files={"file": encode("blue")}, headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (200, kind)
    for path, status in {"/predict": 415, "/nowhere": 404}.items():
        response = client.post(path, content=b"x", headers={**headers, "content-type": "text/plain"})
        assert (response.status_code, response.headers["content-type"]) == (status, problem)


def test_the_inference_protocol_has_no_html(client):
    """Even if a client accepts it by default, as Java's does, because its clients parse `error`."""
    response = client.get("/v2/models/none", headers={"accept": "text/html, image/gif, */*; q=.2"})
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert response.json()["error"]


def test_the_result_page_shows_the_json_answer(client):
    """Exactly as a program would get it."""
    files = {"file": ("image.png", encode((200, 50, 0)))}
    reply = client.post("/predict", files=files).json()
    html = client.post("/predict", files=files, headers=BROWSER).text
    shown = re.search(r'<pre class="json"[^>]*><code>(.*?)</code>', html, re.DOTALL)[1]
    assert json.loads(shown.replace("&#34;", '"')) == reply


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (0.0, "Of many test pictures given 80&nbsp;%, about 80&nbsp;% were right. Pictures"),
        (0.03, "Of many test pictures given 80&nbsp;%, about 80&nbsp;% were right. Pictures"),
        (0.1, "On the test pictures, probabilities were off by 10 points on average. Pictures"),
        (None, "to decode it, wait in the queue and run tiny 1 . Pictures"),
    ],
)
def test_the_result_page_explains_its_probability_by_the_calibration_error(version, error, said):
    """Without one, it explains nothing."""
    with serve(version, metrics=Metrics(calibration_error=error)) as client:
        assert said in read_words(client.post("/predict", files={"file": encode()}, headers=BROWSER))


@pytest.mark.parametrize(("colour", "hinted"), [("black", True), ("red", False)])
def test_an_unfamiliar_picture_gets_a_hint(make_client, colour, hinted):
    """In addition to its label. The JSON has its typicality."""
    client = make_client(typicality=tell_brightness)
    page = client.post("/predict", files={"file": encode(colour)}, headers={"accept": "text/html"}).text
    assert ("unlike the pictures that the model was trained on" in page) == hinted
    assert '<span class="label">red</span>' in page
    assert "&#34;typicality&#34;" in page


def test_a_version_without_typicality_gives_no_hint(client):
    """And its JSON has no such field."""
    page = client.post("/predict", files={"file": encode("black")}, headers={"accept": "text/html"}).text
    assert "unlike the pictures" not in page
    assert "typicality" not in page


def test_an_error_page_has_the_status_and_headers_of_the_error(client):
    """Only the body differs: a page with the same detail."""
    client.app.state.classifier.store._model = None
    response = client.post("/predict", files={"file": encode()}, headers=BROWSER)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert "The model is not ready" in response.text
    assert response.headers["x-request-id"] in response.text
    response = client.get("/predict/batch", headers=BROWSER)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


def test_the_metrics_name_the_routes_of_pages(client):
    """As patterns, so that clients can't add series."""
    asked = "/", "/docs", "/model/card/", "/samples/red.png", "/samples/other.png", "/web/page.css", "/web/other.png"
    for path in (*asked, "/docs/assets/swagger-ui.css"):
        client.get(path, headers=BROWSER)
    client.post("/predict", files={"file": encode()}, headers=BROWSER)
    metrics = client.get("/metrics").text
    for route in ("/", "/docs", "/docs/assets/{name}", "/model/card/", "/samples/{name}", "/web/{name}", "/predict"):
        assert f'route="{route}"' in metrics
    assert 'route="none"' not in metrics
    assert "other.png" not in metrics


def test_text_from_clients_is_escaped(client):
    """Such as the path and the host."""
    response = client.get("/<script>alert(1)</script>", headers=BROWSER)
    assert "<script>alert" not in response.text
    headers = {**BROWSER, "host": '"><script>alert(1)</script>'}
    assert "<script>alert" not in client.post("/predict", files={"file": encode()}, headers=headers).text


@pytest.mark.parametrize("path", ["/", "/model/card/", "/docs", "/nowhere"])
def test_every_page_has_a_strict_content_security_policy(client, path):
    """Without inline scripts or styles, other origins or frames; and the page contains none of them."""
    response = client.get(path, headers=BROWSER)
    assert response.headers["content-security-policy"] == CONTENT_POLICY
    assert "unsafe" not in CONTENT_POLICY
    assert not re.search(r"<[^>]+(\sstyle=|\son\w+=|javascript:)|<style|<script>", response.text)
    assert not re.search(r"""(src|href|action)=["']?(https?:)?//""", response.text)


def test_only_the_cards_files_in_the_metadata_are_served(client, version):
    """No other file, and none that was changed."""
    assert client.get("/model/card/curves.png").content == encode("red")
    (version / "card" / "extra.png").write_bytes(encode())
    for name in (
        "extra.png",
        "README.md",
        "nothing.png",
        "..%2fmetadata.json",
        "%2e%2e/golden.npz",
        "..%2Fx%2Fred.png",
    ):
        assert client.get(f"/model/card/{name}").status_code == 404, name
    (version / "card" / "curves.png").write_bytes(encode("blue"))
    assert client.get("/model/card/curves.png").status_code == 404
    (version / "card" / "README.md").unlink()
    assert client.get("/model/card/", headers=BROWSER).status_code == 404


def test_the_cards_markdown_is_sanitized():
    """HTML becomes text, and there are no script links and no inline styles."""
    html = render_markdown('<img src=x onerror="a()">\n\n[x](javascript:a)\n\n| a |\n| ---: |\n| b |\n')
    assert "<img" not in html
    assert "<a " not in html
    assert "style=" not in html


def test_only_samples_in_the_index_are_served(client, version):
    """With their media types, and never through a link."""
    samples = version.parent / "samples"
    assert client.get("/samples/red.png").headers["content-type"] == "image/png"
    (samples / "other.png").write_bytes(encode())
    for name in ("other.png", "samples.json", "..%2f1%2fmetadata.json"):
        assert client.get(f"/samples/{name}").status_code == 404
    (samples / "red.png").unlink()
    (samples / "red.png").symlink_to(version / "card" / "README.md")
    assert client.get("/samples/red.png").status_code == 404
    assert "red.png" not in client.get("/").text
    (samples / "samples.json").write_text("{}")
    assert "Or try one of these" not in client.get("/").text


@pytest.mark.parametrize("path", ["/web/page.css", "/docs/assets/swagger-ui.css", "/samples/red.png"])
@pytest.mark.parametrize("part", ["bytes=a-b", "bytes=9999999-", "bytes=0-1"])
def test_range_requests_get_the_whole_file(client, path, part):
    """The service does not support ranges, and says so."""
    whole = client.get(path)
    response = client.get(path, headers={"range": part})
    assert (response.status_code, response.content) == (200, whole.content)
    assert response.headers.get("accept-ranges", "none") == "none"


@pytest.mark.parametrize("path", ["/web/page.css", "/web/page.js", "/docs/assets/swagger-ui-bundle.js"])
def test_a_file_is_sent_again_only_if_it_has_changed(client, path):
    """Browsers revalidate each time, so a page never has files of two versions."""
    response = client.get(path)
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-cache")
    assert re.match(r"text/(css|javascript)", response.headers["content-type"])
    again = client.get(path, headers={"if-none-match": response.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", response.headers["etag"])
    assert client.get(path, headers={"if-none-match": '"another"'}).content == response.content


@pytest.mark.parametrize("name", ["nothing.js", "redoc.standalone.js", "..%2froutes.py", "%2e%2e/render.py"])
def test_no_other_file_is_served(client, name):
    """No file outside the folders, and none that pages don't use."""
    for folder in ("/web", "/docs/assets"):
        assert client.get(f"{folder}/{name}").status_code == 404


def test_the_page_is_small():
    """Under 60 kB in total, without samples and Swagger UI."""
    assert sum(path.stat().st_size for path in WEB.rglob("*") if path.is_file()) < 60_000


def test_the_shipped_samples_name_their_sources():
    """The index lists every sample, with its licence."""
    for index in (Path(__file__).parents[3] / "models").glob("*/samples/samples.json"):
        samples = json.loads(index.read_text(encoding="utf-8"))
        assert {sample["file"] for sample in samples} == {path.name for path in index.parent.glob("*.[jpw]*g")}
        assert all(re.search("CC0|public domain", sample["credit"]) for sample in samples)
        assert all((index.parent / sample["file"]).stat().st_size < 40_000 for sample in samples)


def test_a_get_of_predict_redirects_a_browser_to_the_form(client):
    """Programs get 405."""
    response = client.get("/predict", headers=BROWSER, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/")
    assert client.get("/predict").status_code == 405


def test_the_result_page_obeys_top_k(client):
    """Like the API."""
    page = client.post("/predict?top_k=2", files={"file": encode()}, headers=BROWSER).text
    assert page.count("<dt>") == 2
    response = client.post("/predict?top_k=9", files={"file": encode()}, headers=BROWSER)
    assert (response.status_code, "send 1 to 3" in response.text) == (422, True)


def test_the_home_page_names_at_most_twelve_classes(version):
    """More would push the form off the screen."""
    names = tuple(f"class {number}" for number in range(200))
    with serve(version, class_names=names) as client:
        text = client.get("/").text
    assert "One of 200 things" in text
    assert "class 11 and 188 more." in text
    assert "class 12" not in text
