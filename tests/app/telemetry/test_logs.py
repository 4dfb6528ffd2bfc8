"""Behaviour of app.telemetry.logs and app.http.access_log: what is logged of a request, and how."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from PIL import ExifTags, Image

from app.telemetry.logs import configure_logs
from tests.app.fakes import encode


@contextmanager
def logging_to(patch: pytest.MonkeyPatch, log_format: str) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    patch.setattr("sys.stderr", stream)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    configure_logs("info", log_format)
    logging.getLogger("httpx2").setLevel("WARNING")  # the client's own lines
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def log(monkeypatch) -> Iterator[io.StringIO]:
    """Where the log goes for the duration of a test, as JSON."""
    with logging_to(monkeypatch, "json") as stream:
        yield stream


@pytest.fixture
def text_log(monkeypatch) -> Iterator[io.StringIO]:
    """Where it goes as text."""
    with logging_to(monkeypatch, "text") as stream:
        yield stream


def read_lines(log: io.StringIO, logger: str = "app.request") -> list[dict]:
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    return [line for line in lines if line["logger"] == logger]


def test_a_request_is_one_line(client, log):
    """With all that an operator asks for afterwards."""
    body = encode()
    headers = {"x-request-id": "job-17", "content-type": "image/png"}
    answer = client.post("/predict?secret=1", content=body, headers=headers)
    [line] = read_lines(log)
    stages = line.pop("stage_seconds")
    assert set(stages) == {"receive", "decode", "queue", "inference"}
    assert 0 < sum(stages.values()) <= line.pop("seconds")
    assert line.pop("time").startswith("20")
    assert line.pop("message").startswith("POST /predict 200 ")
    assert line == {
        "level": "INFO", "logger": "app.request", "request_id": "job-17", "method": "POST",
        "route": "/predict", "path": "/predict", "status": 200, "received_bytes": len(body),
        "sent_bytes": len(answer.content), "model": "tiny", "version": 1,
    }  # fmt: skip
    assert "secret" not in log.getvalue()


def test_probes_fill_no_log(client, log):
    """While they succeed; a failure is a line."""
    for path in ("/health", "/health/live", "/v2/health/live", "/v2/health/ready", "/metrics"):
        client.get(path)
    assert read_lines(log) == []
    client.app.state.draining = True
    client.get("/health")
    assert [line["status"] for line in read_lines(log)] == [503]


def test_a_path_can_not_forge_a_line(client, log):
    """Control characters are escaped, in JSON and in text."""
    client.get("/a%0A%1b[31mERROR%22")
    [line] = read_lines(log)
    assert line["path"] == '/a\\n\\x1b[31mERROR"'
    assert line["problems"] == ["not_found"]


def test_keys_and_images_are_in_no_log(log, make_client):
    """Neither a right key nor a wrong one, at any level."""
    client = make_client(api_keys=("a-key-that-is-right",))
    logging.getLogger().setLevel("DEBUG")
    log.truncate(0)
    log.seek(0)
    for key in ("a-key-that-is-right", "a-key-that-is-wrong"):
        client.post("/predict", files={"file": b"image-bytes"}, headers={"authorization": f"Bearer {key}"})
    assert len(read_lines(log)) == 2
    assert "a-key-that" not in log.getvalue()
    assert "image-bytes" not in log.getvalue()


def test_only_faults_leave_a_traceback(log, make_client):
    """A client's mistakes are lines without one; a fault of the model has one."""
    client = make_client(lambda _: {}["secret"])
    client.post("/predict", files={"file": b"text"})
    client.post("/predict", files={"file": encode()[:60]})
    client.get("/nowhere")
    assert "Traceback" not in log.getvalue()
    client.post("/predict", files={"file": encode()}, headers={"x-request-id": "job-18"})
    [line] = read_lines(log, "app.inference.batcher")
    assert "KeyError: 'secret'" in line["traceback"]
    assert line["request_id"] == "job-18"


def test_a_fault_is_named(client, log, monkeypatch):
    """500 and the code stand in the request's line, although nothing of the application answered it."""
    monkeypatch.setattr("app.api.routes.read_image", lambda *_, **__: {}["secret"])
    client.post("/predict", files={"file": encode()})
    [line] = read_lines(log)
    assert (line["status"], line["problems"]) == (500, ["internal"])


def test_what_is_in_a_picture_is_in_no_log(log, client):
    """Pillow tells of a picture's EXIF at the level of debugging: who took it, and where."""
    logging.getLogger().setLevel("DEBUG")
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "somebody"
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG", exif=exif)
    assert client.post("/predict", files={"file": buffer.getvalue()}).status_code == 200
    assert "somebody" not in log.getvalue()


def test_a_line_of_text_ends_with_its_requests_id(text_log, client):
    """A person who is told of an id looks for it there, too."""
    client.post("/predict", content=b"text", headers={"content-type": "image/png", "x-request-id": "job-19"})
    line = text_log.getvalue().splitlines()[-1]
    assert "POST /predict 415 " in line
    assert line.endswith(" unsupported_image [job-19]")


def test_nothing_ends_a_line_of_text_but_its_end(text_log):
    """Names of files and versions are input too; a traceback keeps its lines."""
    try:
        {}["key"]
    except KeyError:
        logging.getLogger("app").exception("refused: %s", "x\n2026-11-27 INFO app: all is well\x1b[2J\u2028")
    first, *rest = text_log.getvalue().splitlines()
    assert first.endswith(r"refused: x\n2026-11-27 INFO app: all is well\x1b[2J\u2028")
    assert rest[0].startswith("Traceback")


def test_a_terminal_gets_text(monkeypatch):
    """For people; everything else gets JSON unless it is told otherwise."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    cases = ((True, "auto", True), (False, "auto", False), (True, "json", False), (False, "text", True))
    for terminal, chosen, text in cases:
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda terminal=terminal: terminal)
        monkeypatch.setattr("sys.stderr", stream)
        root.handlers.clear()
        configure_logs("info", chosen)
        logging.getLogger("app").info("hello %s", "you", extra={"number": 7})
        assert stream.getvalue().startswith("{") != text
        assert "hello you" in stream.getvalue()
    root.handlers[:] = handlers
    root.setLevel(level)
