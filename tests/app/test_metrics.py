"""Behaviour of app.metrics, app.trace and app.recorder: what is counted, measured and logged of a request."""

import io
import json
import logging
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.logs import configure_logs
from app.problems import KINDS, OTHER_KINDS
from tests.app.fakes import HeldModel, encode


def read(client) -> dict[str, float]:
    """Return every sample by its name and labels, as Prometheus writes them."""
    samples = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def test_requests_and_stages_are_measured(client):
    """By route and status; each image's time in each stage; sizes of bodies and batches."""
    for _ in range(3):
        assert client.post("/predict", files={"file": encode()}).status_code == 200
    assert client.post("/predict/batch", files=[("files", encode())] * 4).status_code == 200
    client.post("/predict", content=b"", headers={"content-type": "image/png"})
    found = read(client)
    assert found['classifier_requests_total{route="/predict",status="200"}'] == 3
    assert found['classifier_requests_total{route="/predict",status="400"}'] == 1
    assert found['classifier_requests_total{route="/predict/batch",status="200"}'] == 1
    assert found['classifier_request_seconds_count{route="/predict"}'] == 4
    assert found['classifier_stage_seconds_count{stage="receive"}'] == 5
    for stage in ("decode", "queue", "inference"):
        assert found[f'classifier_stage_seconds_count{{stage="{stage}"}}'] == 7
    assert found["classifier_batch_images_sum"] == 7
    assert found["classifier_upload_bytes_count"] == 4
    assert found["classifier_upload_bytes_sum"] > 7 * len(encode())
    assert found['classifier_problems_total{code="empty_upload"}'] == 1
    assert found['classifier_model_loads_total{outcome="loaded"}'] == 1
    assert found['classifier_model_info{model="tiny",precision="f32",runtime="fake",version="1"}'] == 1
    assert found["classifier_refused_versions"] == found["classifier_queue_images"] == 0
    assert found["process_resident_memory_bytes"] > 0


def test_problems_are_counted_image_by_image(client):
    """Two bad images in one request are two."""
    client.post("/predict/batch", files=[("files", b"text"), ("files", b"text"), ("files", encode())])
    assert read(client)['classifier_problems_total{code="unsupported_image"}'] == 2


def test_no_client_makes_a_series(client):
    """Neither paths, methods, parameters nor ids become labels: a thousand of each add nothing."""
    client.get("/nowhere")
    client.post("/nowhere", content=b"x")
    read(client)
    before = set(read(client))
    for i in range(50):
        client.request(f"M{i}", f"/nowhere/{i}?a={i}", headers={"x-request-id": f"id-{i}"})
        client.post(f"/predict?top_k={i + 100}", files={f"field{i}": encode()})
    added = set(read(client)) - before
    assert {name.partition("{")[0] for name in added} <= {
        "classifier_requests_total", "classifier_request_seconds_bucket", "classifier_request_seconds_count",
        "classifier_request_seconds_sum", "classifier_problems_total",
    }  # fmt: skip
    assert not [name for name in added if "nowhere" in name or "M1" in name or "id-" in name]
    codes = {name.split('"')[1] for name in read(client) if name.startswith("classifier_problems_total")}
    assert codes <= {kind.code for kind in (*KINDS.values(), *OTHER_KINDS)}


def test_metrics_answer_while_every_place_is_taken(make_client):
    """A full queue is when they are wanted most; the depth is the live one."""
    held = HeldModel()
    client = make_client(held, max_queue_size=1)
    waiting = threading.Thread(target=client.post, args=("/predict",), kwargs={"files": {"file": encode()}})
    waiting.start()
    assert held.reached.wait(10)
    assert client.post("/predict", files={"file": encode()}).status_code == 429
    found = read(client)
    assert found["classifier_queue_images"] == 1
    assert found['classifier_problems_total{code="queue_full"}'] == 1
    held.opened.set()
    waiting.join()


@pytest.fixture
def log(monkeypatch) -> io.StringIO:
    """Where the log goes for the duration of a test, as JSON."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    configure_logs("info", "json")
    logging.getLogger("httpx2").setLevel("WARNING")  # the client's own lines
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


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
        "level": "INFO", "logger": "app.request", "request_id": "job-17", "client": "testclient", "method": "POST",
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
    client.post("/predict", files={"file": encode()})
    assert "KeyError: 'secret'" in read_lines(log, "app.batcher")[0]["traceback"]


def test_a_fault_is_counted_and_named(client, log, monkeypatch):
    """500 and the code stand in the request's line, although nothing of the application answered it."""
    monkeypatch.setattr("app.routes.read_image", lambda *_, **__: {}["secret"])
    client.post("/predict", files={"file": encode()})
    [line] = read_lines(log)
    assert (line["status"], line["problems"]) == (500, ["internal"])
    assert read(client)['classifier_requests_total{route="/predict",status="500"}'] == 1


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
