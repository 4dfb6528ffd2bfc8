"""Behaviour of app.telemetry.metrics after real requests."""

import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.http.problems import COMMON_KINDS, INTERNAL, KINDS
from tests.app.fakes import HeldModel, encode, tell_brightness


def read(client) -> dict[str, float]:
    """Return every sample by its name and labels, in Prometheus's notation."""
    samples = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def test_requests_and_stages_are_measured(client):
    """Requests by route and status, the time of each image in each stage, body and batch sizes."""
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


def test_typicality_is_measured_if_the_version_has_it(make_client):
    """Once for each classified image."""
    client = make_client(typicality=tell_brightness)
    client.post("/predict/batch", files=[("files", encode(colour)) for colour in ("black", "red")])
    found = read(client)
    assert found["classifier_typicality_count"] == 2
    assert found['classifier_typicality_bucket{le="0.01"}'] == 1
    assert found["classifier_typicality_sum"] == pytest.approx(1 / 3)
    client = make_client()
    client.post("/predict", files={"file": encode()})
    assert read(client)["classifier_typicality_count"] == 0


def test_problems_are_counted_by_image(client):
    """Two bad images in one request count as two."""
    client.post("/predict/batch", files=[("files", b"text"), ("files", b"text"), ("files", encode())])
    assert read(client)['classifier_problems_total{code="unsupported_image"}'] == 2


def test_no_client_can_add_a_series(client):
    """Paths, methods, parameters and ids never become labels."""
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
    assert codes <= {kind.code for kind in (*KINDS.values(), INTERNAL, *COMMON_KINDS)}


def test_metrics_are_answered_while_the_queue_is_full(make_client):
    """With the current queue depth."""
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


def test_an_unexpected_error_is_counted(client, monkeypatch):
    """As a 500, although no handler answered it."""
    monkeypatch.setattr("app.api.routes.read_image", lambda *_, **__: {}["secret"])
    client.post("/predict", files={"file": encode()})
    assert read(client)['classifier_requests_total{route="/predict",status="500"}'] == 1
