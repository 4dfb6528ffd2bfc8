"""Behaviour of app.telemetry.logs and app.http.access_log: which events are logged, and the format of the lines."""

import contextlib
import http.client
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest
from PIL import ExifTags, Image

from app.telemetry.logs import LogQueue, configure_logs
from benchmarks.port import find_free_port
from tests.app.fakes import encode
from tests.app.process import ROOT, ask


class Stream(io.StringIO):
    """Standard error; keeps what was logged."""

    log: LogQueue

    def getvalue(self) -> str:
        self.log.flush()
        return super().getvalue()


@contextmanager
def logging_to(patch: pytest.MonkeyPatch, log_format: str, stream: Stream | None = None) -> Iterator[Stream]:
    stream = stream or Stream()
    patch.setattr("sys.stderr", stream)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    stream.log = configure_logs("info", log_format)
    logging.captureWarnings(capture=False)
    logging.getLogger("httpx2").setLevel("WARNING")  # of the test client
    yield stream
    stream.log.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def log(monkeypatch) -> Iterator[io.StringIO]:
    """The JSON log during a test."""
    with logging_to(monkeypatch, "json") as stream:
        yield stream


@pytest.fixture
def text_log(monkeypatch) -> Iterator[io.StringIO]:
    """The log as text."""
    with logging_to(monkeypatch, "text") as stream:
        yield stream


def read_lines(log: io.StringIO, logger: str = "app.request") -> list[dict]:
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    return [line for line in lines if line["logger"] == logger]


def test_each_request_logs_one_line(client, log):
    """With its id, route, status, sizes and times."""
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


def test_successful_probes_are_not_logged(client, log):
    """A failed one is."""
    for path in ("/health", "/health/live", "/v2/health/live", "/v2/health/ready", "/metrics"):
        client.get(path)
    assert read_lines(log) == []
    client.app.state.draining = True
    client.get("/health")
    assert [line["status"] for line in read_lines(log)] == [503]


def test_a_path_cannot_forge_a_log_line(client, log):
    """Control characters are escaped, in JSON and in text."""
    client.get("/a%0A%1b[31mERROR%22")
    [line] = read_lines(log)
    assert line["path"] == '/a\\n\\x1b[31mERROR"'
    assert line["problems"] == ["not_found"]


def test_keys_and_images_are_never_logged(log, make_client):
    """Neither valid nor invalid keys, at any level."""
    client = make_client(api_keys=("a-key-that-is-right",))
    logging.getLogger().setLevel("DEBUG")
    log.log.flush()
    log.truncate(0)
    log.seek(0)
    for key in ("a-key-that-is-right", "a-key-that-is-wrong"):
        client.post("/predict", files={"file": b"image-bytes"}, headers={"authorization": f"Bearer {key}"})
    assert len(read_lines(log)) == 2
    assert "a-key-that" not in log.getvalue()
    assert "image-bytes" not in log.getvalue()


def test_only_faults_of_the_service_log_a_traceback(log, make_client):
    """Such as one of the model. Errors of clients are lines without one."""
    client = make_client(lambda _: {}["secret"])
    client.post("/predict", files={"file": b"text"})
    client.post("/predict", files={"file": encode()[:60]})
    client.get("/nowhere")
    assert "Traceback" not in log.getvalue()
    client.post("/predict", files={"file": encode()}, headers={"x-request-id": "job-18"})
    [line] = read_lines(log, "app.inference.batcher")
    assert "KeyError: 'secret'" in line["traceback"]
    assert line["request_id"] == "job-18"


def test_an_unexpected_error_is_logged_with_its_request(client, log, monkeypatch):
    """The request's line has status 500 and the code, although no handler answered it."""
    monkeypatch.setattr("app.api.routes.read_image", lambda *_, **__: {}["secret"])
    client.post("/predict", files={"file": encode()})
    [line] = read_lines(log)
    assert (line["status"], line["problems"]) == (500, ["internal"])


def test_image_metadata_are_never_logged(log, client):
    """At level debug, Pillow would log EXIF, which can name the photographer and the place."""
    logging.getLogger().setLevel("DEBUG")
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "somebody"
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG", exif=exif)
    assert client.post("/predict", files={"file": buffer.getvalue()}).status_code == 200
    assert "somebody" not in log.getvalue()


def test_a_line_of_text_ends_with_the_request_id(text_log, client):
    """So that people find the request of an error in the text log too."""
    client.post("/predict", content=b"text", headers={"content-type": "image/png", "x-request-id": "job-19"})
    line = text_log.getvalue().splitlines()[-1]
    assert "POST /predict 415 " in line
    assert line.endswith(" unsupported_image [job-19]")


def test_control_characters_are_escaped_in_the_text_log(text_log):
    """Names of files and versions may contain newlines. Tracebacks keep theirs."""
    try:
        {}["key"]
    except KeyError:
        logging.getLogger("app").exception("refused: %s", "x\n2026-11-27 INFO app: all is well\x1b[2J\u2028")
    first, *rest = text_log.getvalue().splitlines()
    assert first.endswith(r"refused: x\n2026-11-27 INFO app: all is well\x1b[2J\u2028")
    assert rest[0].startswith("Traceback")


@pytest.mark.parametrize(
    ("terminal", "chosen", "text"),
    [(True, "auto", True), (False, "auto", False), (True, "json", False), (False, "text", True)],
)
def test_a_terminal_gets_text(monkeypatch, terminal, chosen, text):
    """Everything else gets JSON, unless the setting says otherwise."""
    stream = Stream()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    with logging_to(monkeypatch, chosen, stream):
        logging.getLogger("app").info("hello %s", "you", extra={"number": 7})
        assert stream.getvalue().startswith("{") != text
        assert "hello you" in stream.getvalue()


class StuckStream(Stream):
    """A pipe that nobody reads until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.opened = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        assert self.opened.wait(10)
        return super().write(text)


def test_lines_are_dropped_and_counted_while_the_stream_is_blocked(monkeypatch):
    """Logging never waits for standard error, and continues when it accepts lines again."""
    monkeypatch.setattr("app.telemetry.logs.MAX_WAITING_LINES", 10)
    stuck = StuckStream()
    dropped = []
    with logging_to(monkeypatch, "text", stuck):
        stuck.log.count_dropped = lambda: dropped.append(1)
        logging.getLogger("app").info("line 0")
        assert stuck.reached.wait(10)
        for number in range(1, 31):
            logging.getLogger("app").info("line %d", number)
        assert len(dropped) == 20
        stuck.opened.set()
        lines = stuck.getvalue().splitlines()
        logging.getLogger("app").info("later")
        assert [line.rpartition(" ")[2] for line in lines] == [str(number) for number in range(11)]
        assert "later" in stuck.getvalue()


def test_lines_that_cannot_be_written_are_counted(monkeypatch):
    """Without a message on standard error, which is what fails."""
    stream = Stream()
    monkeypatch.setattr(stream, "write", Mock(side_effect=BrokenPipeError))
    dropped = []
    with logging_to(monkeypatch, "json", stream):
        stream.log.count_dropped = lambda: dropped.append(1)
        logging.getLogger("app").info("lost")
        assert stream.getvalue() == ""
    assert dropped == [1]


# The service with a short queue of log lines.
SHORT_QUEUE = """
import app.telemetry.logs
app.telemetry.logs.MAX_WAITING_LINES = 100
from app.__main__ import main
main()
"""


@contextmanager
def connect(port: int, process: subprocess.Popen, *, until: int) -> Iterator[http.client.HTTPConnection]:
    """Connect to a process whose log nobody reads, once `/health` has this status."""
    for _ in range(1000):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.closing(connection), contextlib.suppress(ConnectionRefusedError):
            if ask(connection, "GET", "/health")[0] == until:
                yield connection
                return
        assert process.poll() is None
        time.sleep(0.02)
    pytest.fail("never answered")


@pytest.mark.parametrize("reader", ["asleep", "gone"])
def test_the_service_continues_if_nobody_reads_its_log(exported, reader):
    """1,000 requests are answered, probes are quick, a metric counts the lost lines, and SIGTERM ends the process."""
    port = find_free_port()
    readable, writable = os.pipe()
    environment = {**os.environ, "APP_PORT": str(port), "APP_MODEL_DIR": str(exported.parent.parent)}
    environment |= {"APP_DRAIN_SECONDS": "0", "APP_MAX_BATCH_SIZE": "1"}
    process = subprocess.Popen([sys.executable, "-c", SHORT_QUEUE], cwd=ROOT, env=environment, stderr=writable)
    os.close(writable)
    if reader == "gone":
        os.close(readable)
    stack = contextlib.ExitStack()
    try:
        connection = stack.enter_context(connect(port, process, until=200))
        slowest = 0.0
        for number in range(1000):
            assert ask(connection, "POST", "/predict", encode("blue"))[0] == 200
            if number % 50 == 0:
                started = time.monotonic()
                assert ask(connection, "GET", "/health/live")[0] == 200
                slowest = max(slowest, time.monotonic() - started)
        connection.request("GET", "/metrics")
        [dropped] = re.findall(r"classifier_log_lines_dropped_total (\d\S*)", connection.getresponse().read().decode())
        assert slowest < 1
        assert float(dropped) > 500
        process.terminate()
        assert process.wait(10) == 0
    finally:
        stack.close()
        process.kill()
        process.wait(10)
        if reader == "asleep":
            os.close(readable)


def test_the_service_starts_with_closed_standard_streams(exported):
    """No socket gets their numbers, which libraries write to. Decoders start too."""
    port = find_free_port()
    environment = {**os.environ, "APP_PORT": str(port), "APP_MODEL_DIR": str(exported), "APP_DRAIN_SECONDS": "0"}
    command = ["/bin/sh", "-c", f"exec {sys.executable} -m app <&- >&- 2>&-"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        with connect(port, process, until=200) as connection:
            assert ask(connection, "POST", "/predict", encode(kind="GIF"))[0] == 200
        files = {Path(f"/proc/{process.pid}/fd/{number}").readlink() for number in range(3)}
        assert files == {Path("/dev/null")}
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait(10)
