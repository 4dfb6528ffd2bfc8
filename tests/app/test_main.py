"""Behaviour of the server process: `python -m app`, over real sockets."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from benchmarks.port import find_free_port
from tests.app.fakes import encode
from tests.app.process import ROOT, ask, is_running, list_decoders, wait_until


def test_the_process_serves_a_real_model_and_drains(start, exported):
    """Ready, an answer, SIGTERM, answers while `/health` is 503, then exit status 0."""
    process = start(model_dir=exported.parent.parent, max_batch_size=2, drain_seconds=1.5)
    assert process.wait_until("ok")["runtime"]["name"] == "openvino"
    kept = process.connect()
    kept.request("HEAD", "/health")
    with kept.getresponse() as head:  # without a body, which would look like the next answer
        assert head.status == 200
    assert ask(kept, "POST", "/predict", encode("blue"))[1]["label"] == "blue"

    signalled = time.monotonic()
    process.signal()
    assert process.wait_until("draining")
    assert process.get("/health")[0] == 503
    assert time.monotonic() - signalled < 1
    for _ in range(2):  # the kept connection, and the one that replaces it
        status, reply = ask(kept, "POST", "/predict", encode("red"))
        assert (status, reply["label"]) == (200, "red")
    assert process.wait() == 0
    assert time.monotonic() - signalled >= 1.5
    with pytest.raises(ConnectionRefusedError):
        process.get("/health")
    kept.close()


def test_an_upload_in_flight_outlives_the_drain(start, exported):
    """A request in flight is finished after the listener has closed."""
    process = start(model_dir=exported.parent.parent, max_batch_size=1, drain_seconds=0)
    process.wait_until("ok")
    data = encode("blue")
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as client:
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(data)}\r\n\r\n"
        client.sendall(head.encode() + data[:20])
        time.sleep(0.1)
        process.signal(signal.SIGINT)
        time.sleep(0.5)
        with pytest.raises(ConnectionRefusedError):
            process.get("/health")
        client.sendall(data[20:])
        assert b"200 OK" in client.recv(100)
    assert process.wait() == 0


def test_a_second_signal_ends_the_drain(start, tmp_path):
    """At once."""
    process = start(model_dir=tmp_path, drain_seconds=60)
    process.wait_until("unavailable")
    process.signal(signal.SIGINT)
    process.wait_until("draining")
    process.signal(signal.SIGINT)
    assert process.wait() == 0


def test_a_third_signal_drops_requests_in_flight(start, exported):
    """As if the client had disconnected: one log line, no traceback, exit status 0."""
    process = start(model_dir=exported.parent.parent, max_batch_size=1, drain_seconds=60)
    process.wait_until("ok")
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 99\r\n\r\nxx")
        process.wait_until("ok")  # the request has begun
        for _ in range(3):
            process.signal()
            time.sleep(0.3)
        assert process.wait() == 0
    process.end()
    assert [line for line in process.log if '"problems": ["client_gone"]' in line]
    assert not [line for line in process.log if "Traceback" in line or "Error" in line]


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_closes_starts_the_drain(start, tmp_path, ignored):
    """SIGHUP works like SIGTERM, unless it is ignored at the start, as under `nohup`."""
    program = ("-c", "import signal, app.__main__ as m; signal.signal(signal.SIGHUP, signal.SIG_IGN); m.main()")
    process = start(program=program if ignored else ("-m", "app"), model_dir=tmp_path, drain_seconds=0)
    process.signal(signal.SIGHUP)
    if ignored:
        process.wait_until("unavailable")
        process.signal()
    assert process.wait() == 0


# The service with a model that takes three seconds.
SLOW = """
import time
from app.inference.classifier import Classifier
predict = Classifier._predict
Classifier._predict = lambda *images: (time.sleep(3), predict(*images))[1]
from app.__main__ import main
main()
"""


def test_probes_have_connections_of_their_own(start, exported):
    """Probes work while requests use all public connections, and after the public listener has closed."""
    process = start(
        program=("-c", SLOW), model_dir=exported.parent.parent, max_batch_size=1, max_connections=2, probe_port=0,
        drain_seconds=0, api_keys="a-long-enough-key",
    )  # fmt: skip
    process.wait_until("ok")
    port = int(re.search(r"probes on http://127.0.0.1:(\d+)", process.read_line("probes on"))[1])

    def probe(path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code

    image = encode("blue")
    head = "POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a-long-enough-key\r\nContent-Type: image/png\r\n"
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", process.port))) for _ in range(2)]
        for client in clients:
            client.sendall(f"{head}Content-Length: {len(image)}\r\n\r\n".encode() + image)
        time.sleep(0.2)
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            process.get("/health/live")
        for path in ("/health", "/health/live", "/v2/health/live", "/v2/health/ready", "/metrics"):
            assert probe(path) == 200
        assert [probe(path) for path in ("/", "/predict", "/model", "/docs", "/openapi.json")] == [404] * 5
        process.signal()
        time.sleep(0.5)
        with pytest.raises(ConnectionRefusedError):
            process.get("/health")
        assert (probe("/health"), probe("/health/live")) == (503, 200)
        assert [client.recv(12) for client in clients] == [b"HTTP/1.1 200"] * 2
    assert process.wait() == 0


SLOW_LOAD = """
import threading
import app.versions.store
app.versions.store.find_versions = lambda *_: threading.Event().wait()
from app.__main__ import main
main()
"""


@pytest.mark.parametrize("signals", [1, 3])
def test_a_decoder_that_never_finishes_does_not_delay_the_exit(start, exported, signals):
    """Its client gets 504, and the process exits in time, with status 0 and no process left behind."""
    process = start(
        model_dir=exported.parent.parent, max_batch_size=1, drain_seconds=0.2, request_timeout_seconds=0.5, decoders=1
    )
    process.wait_until("ok")
    connection = process.connect()
    picture = encode(size=(400, 300))
    assert ask(connection, "POST", "/predict", picture)[0] == 200
    (decoder,) = list_decoders(process.popen.pid)
    os.kill(decoder, signal.SIGSTOP)
    assert ask(connection, "POST", "/predict", picture)[0] == 504
    assert ask(connection, "POST", "/predict", picture)[0] == 200
    connection.request("GET", "/metrics")
    assert 'classifier_decoder_restarts_total{reason="cancelled"} 1.0' in connection.getresponse().read().decode()
    (decoder,) = list_decoders(process.popen.pid)
    connection.close()
    for _ in range(signals):
        process.signal()
        time.sleep(0.05)
    assert process.popen.wait(5) == 0
    wait_until(lambda: not is_running(decoder))


def test_a_signal_before_the_server_runs_ends_the_process_quietly(tmp_path):
    """The handlers are installed before the slow imports."""
    process = subprocess.Popen(
        [sys.executable, "-m", "app"],
        env={**os.environ, "APP_PORT": "0", "APP_MODEL_DIR": str(tmp_path)},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    status = Path(f"/proc/{process.pid}/status")
    caught = 0
    while not caught & 1 << signal.SIGTERM - 1:
        caught = int(re.search(r"SigCgt:\s*(\w+)", status.read_text())[1], 16)
    process.terminate()
    _, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (0, "")


def test_signals_while_a_version_loads_end_the_process_quietly(start, tmp_path):
    """Even several of them, while the loader's thread is running."""
    process = start(program=("-c", SLOW_LOAD), model_dir=tmp_path, drain_seconds=60)
    for _ in range(6):
        process.signal()
        time.sleep(0.1)
    assert process.popen.wait(5) == 0


def test_a_body_without_a_length_is_refused_at_the_limit(start, exported):
    """Chunks are counted as they arrive."""
    process = start(model_dir=exported.parent.parent, max_batch_size=1, max_upload_bytes=10_000)
    process.wait_until("ok")
    connection = process.connect()
    connection.request("POST", "/predict", iter([bytes(1000)] * 20), {"content-type": "image/png"}, encode_chunked=True)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["code"]) == (413, "upload_too_large")
    connection.close()


def test_a_slow_body_times_out(start, exported):
    """The client gets 408, and its connection is closed."""
    process = start(model_dir=exported.parent.parent, max_batch_size=1, upload_timeout_seconds=0.2)
    process.wait_until("ok")
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 99\r\n\r\nxx")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"upload_timeout" in answer


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("APP_PORT", "eighty", "APP_PORT: "), ("APP_RUNTIME", "torch", "APP_RUNTIME: Input should be 'openvino' or ")],
)
def test_a_bad_setting_is_one_line(name, value, said):
    """Exit status 2, the variable's name and what is wrong with it, without a traceback."""
    process = subprocess.run(
        [sys.executable, "-m", "app"],
        env={**os.environ, name: value},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert process.stderr.startswith(said)
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize("argument", ["--help", "--port=9000"])
def test_an_argument_is_one_line(argument):
    """If it were ignored, the service would listen on another port than expected."""
    command = [sys.executable, "-m", "app", argument]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "takes no arguments: set the APP_" in done.stderr


def test_an_address_in_use_is_one_line(tmp_path):
    """Before anything is loaded or logged: the settings, their values and the error."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        process = subprocess.run(
            [sys.executable, "-m", "app"],
            env={**os.environ, "APP_PORT": str(port), "APP_MODEL_DIR": str(tmp_path)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert process.returncode == 2
    assert process.stderr == f"APP_HOST=127.0.0.1 APP_PORT={port}: can't listen there: Address already in use\n"


def test_an_unknown_setting_is_mentioned(start, tmp_path):
    """A typo in a variable's name gets a warning."""
    process = start(model_dir=tmp_path, max_batchsize=3, drain_seconds=0)
    assert any("APP_MAX_BATCHSIZE is not a setting" in line for line in process.log)
    process.signal()
    assert process.wait() == 0


def test_importing_the_module_makes_no_application():
    """`python -m app` makes its own; accessing `app.main.app`, as uvicorn does, makes it once."""
    code = "import app.main; print('app' in vars(app.main), app.main.app is app.main.app)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_uvicorn_serves_the_application_by_its_name(tmp_path):
    """`uvicorn app.main:app` works, without the drain."""
    port = find_free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port), "--log-level", "error"],
        env={**os.environ, "APP_MODEL_DIR": str(tmp_path)},
        cwd=ROOT,
    )
    try:
        for _ in range(500):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live") as response:
                    assert response.status == 200
                    break
            except OSError:
                time.sleep(0.02)
        else:
            pytest.fail("never answered")
    finally:
        process.terminate()
        process.wait(10)
