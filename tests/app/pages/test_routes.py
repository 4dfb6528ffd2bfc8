"""Behaviour of app.pages over HTTP; tests/page has what a browser makes of it."""

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
    """Start a service on a version that has a card and samples, with `changes` to its metadata."""
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
    """Give a page's text, without its markup."""
    return " ".join(re.sub(r"<[^>]+>", " ", response.text).split())


def test_the_home_page_tells_what_the_model_is(client):
    """Its version, its accuracy and on what, its classes: from the metadata."""
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
def test_the_home_page_tells_what_is_known_of_the_accuracy(version, metrics, said):
    """A version serves without it, too."""
    with serve(version, metrics=Metrics.model_validate(metrics)) as client:
        assert said in read_words(client.get("/"))


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (BROWSER["accept"], True), ("text/html", True), ("*/*", False), (None, False), ("application/json", False),
        ("application/json, text/html", False),
    ],
)  # fmt: skip
def test_html_is_for_those_who_ask_for_it(client, accept, html):
    """Programs, which ask for anything, get JSON, answers and errors alike."""
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


def test_the_inference_protocol_knows_no_html(client):
    """Whatever its clients accept by themselves, as Java's do; they look for `error`."""
    response = client.get("/v2/models/none", headers={"accept": "text/html, image/gif, */*; q=.2"})
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert response.json()["error"]


def test_the_html_answer_is_the_json_answer(client):
    """The same numbers, and the very reply to read."""
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
        (None, "to decode it, wait its turn and run tiny 1 . Pictures"),
    ],
)
def test_an_answer_promises_of_its_probability_what_was_measured(version, error, said):
    """And nothing where nothing was."""
    with serve(version, metrics=Metrics(calibration_error=error)) as client:
        assert said in read_words(client.post("/predict", files={"file": encode()}, headers=BROWSER))


@pytest.mark.parametrize(("colour", "hinted"), [("black", True), ("red", False)])
def test_an_unfamiliar_picture_gets_a_hint(make_client, colour, hinted):
    """Beside its label and probability, not in their place; its typicality is in the JSON."""
    client = make_client(typicality=tell_brightness)
    page = client.post("/predict", files={"file": encode(colour)}, headers={"accept": "text/html"}).text
    assert ("unlike the pictures that the model was trained on" in page) == hinted
    assert '<span class="label">red</span>' in page
    assert "&#34;typicality&#34;" in page


def test_a_version_without_typicality_hints_at_nothing(client):
    """And its JSON has no null."""
    page = client.post("/predict", files={"file": encode("black")}, headers={"accept": "text/html"}).text
    assert "unlike the pictures" not in page
    assert "typicality" not in page


def test_a_refusal_keeps_status_and_headers(client):
    """Only the body is another one: a page with the same words."""
    client.app.state.classifier.store._model = None
    response = client.post("/predict", files={"file": encode()}, headers=BROWSER)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert "The model is not ready" in response.text
    assert response.headers["x-request-id"] in response.text
    response = client.get("/predict/batch", headers=BROWSER)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


def test_the_log_and_the_metrics_name_the_pages_routes(client):
    """As patterns, never as what was asked for."""
    asked = "/", "/docs", "/model/card/", "/samples/red.png", "/samples/other.png", "/web/page.css", "/web/other.png"
    for path in (*asked, "/docs/assets/swagger-ui.css"):
        client.get(path, headers=BROWSER)
    client.post("/predict", files={"file": encode()}, headers=BROWSER)
    metrics = client.get("/metrics").text
    for route in ("/", "/docs", "/docs/assets/{name}", "/model/card/", "/samples/{name}", "/web/{name}", "/predict"):
        assert f'route="{route}"' in metrics
    assert 'route="none"' not in metrics
    assert "other.png" not in metrics


def test_what_a_client_sends_is_never_markup(client):
    """A path, a host: shown as text."""
    response = client.get("/<script>alert(1)</script>", headers=BROWSER)
    assert "<script>alert" not in response.text
    headers = {**BROWSER, "host": '"><script>alert(1)</script>'}
    assert "<script>alert" not in client.post("/predict", files={"file": encode()}, headers=headers).text


@pytest.mark.parametrize("path", ["/", "/model/card/", "/docs", "/nowhere"])
def test_every_page_has_the_strict_policy(client, path):
    """No inline script or style, nothing from elsewhere, in no frame; and no markup that it would block."""
    response = client.get(path, headers=BROWSER)
    assert response.headers["content-security-policy"] == CONTENT_POLICY
    assert "unsafe" not in CONTENT_POLICY
    assert not re.search(r"<[^>]+(\sstyle=|\son\w+=|javascript:)|<style|<script>", response.text)
    assert not re.search(r"""(src|href|action)=["']?(https?:)?//""", response.text)


def test_the_cards_files_are_given_out_only_as_the_metadata_names_them(client, version):
    """Not another file, not a changed one, nothing outside the card."""
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


def test_markdown_of_a_card_can_do_no_harm():
    """HTML in it is text, a script is no link, a column's alignment is no inline style."""
    html = render_markdown('<img src=x onerror="a()">\n\n[x](javascript:a)\n\n| a |\n| ---: |\n| b |\n')
    assert "<img" not in html
    assert "<a " not in html
    assert "style=" not in html


def test_samples_are_those_in_the_index(client, version):
    """With their media types; nothing else lies open, links least of all."""
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
def test_a_file_of_the_page_is_given_whole(client, path, part):
    """This holds for each of its files."""
    whole = client.get(path)
    response = client.get(path, headers={"range": part})
    assert (response.status_code, response.content) == (200, whole.content)
    assert response.headers.get("accept-ranges", "none") == "none"


@pytest.mark.parametrize("path", ["/web/page.css", "/web/page.js", "/docs/assets/swagger-ui-bundle.js"])
def test_a_file_is_sent_again_only_if_it_has_changed(client, path):
    """Browsers ask each time, so that they never show half of an old page."""
    response = client.get(path)
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-cache")
    assert re.match(r"text/(css|javascript)", response.headers["content-type"])
    again = client.get(path, headers={"if-none-match": response.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", response.headers["etag"])
    assert client.get(path, headers={"if-none-match": '"another"'}).content == response.content


@pytest.mark.parametrize("name", ["nothing.js", "redoc.standalone.js", "..%2froutes.py", "%2e%2e/render.py"])
def test_no_other_file_is_served(client, name):
    """Neither from above the folders nor what the pages don't use."""
    for folder in ("/web", "/docs/assets"):
        assert client.get(f"{folder}/{name}").status_code == 404


def test_the_page_is_small():
    """Under 60 kB in all, samples and Swagger UI left out."""
    assert sum(path.stat().st_size for path in WEB.rglob("*") if path.is_file()) < 60_000


def test_the_shipped_samples_name_their_sources():
    """Each sample of each model in the repository has its credit, and each file is in the index."""
    for index in (Path(__file__).parents[3] / "models").glob("*/samples/samples.json"):
        samples = json.loads(index.read_text(encoding="utf-8"))
        assert {sample["file"] for sample in samples} == {path.name for path in index.parent.glob("*.[jpw]*g")}
        assert all(re.search("CC0|public domain", sample["credit"]) for sample in samples)
        assert all((index.parent / sample["file"]).stat().st_size < 40_000 for sample in samples)


def test_an_answers_address_leads_back_to_the_form(client):
    """Asked for again, without a picture, by a browser; a program is told the method."""
    response = client.get("/predict", headers=BROWSER, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/")
    assert client.get("/predict").status_code == 405


def test_the_form_names_as_many_classes_as_are_asked_for(client):
    """As the API does."""
    page = client.post("/predict?top_k=2", files={"file": encode()}, headers=BROWSER).text
    assert page.count("<dt>") == 2
    response = client.post("/predict?top_k=9", files={"file": encode()}, headers=BROWSER)
    assert (response.status_code, "send 1 to 3" in response.text) == (422, True)


def test_of_many_classes_the_home_page_names_a_dozen(version):
    """Or they would push the form off the screen."""
    names = tuple(f"class {number}" for number in range(200))
    with serve(version, class_names=names) as client:
        text = client.get("/").text
    assert "One of 200 things" in text
    assert "class 11 and 188 more." in text
    assert "class 12" not in text
