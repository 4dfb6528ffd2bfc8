"""Services in turn: which are measured, left out and suspended."""

import json
import os
import shutil
import time
from dataclasses import replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count
from urllib.parse import urlsplit

import psutil
import pytest

from benchmarks import comparison
from benchmarks import process as process_module
from benchmarks.comparison import COLUMNS, compare
from benchmarks.pictures import Known
from benchmarks.process import running
from benchmarks.services import LeftOutError, Service
from benchmarks.wrk import PROGRAM, Seen

KNOWN = Known(b"\x89PNG a picture", "cat", 0.9)
number = count(1)  # of the requests that this service process gets


class Answers(BaseHTTPRequestHandler):
    """Answers every request with the label in the environment."""

    def do_POST(self) -> None:
        turn = next(number)
        if turn > int(os.environ["LAST"]):
            os._exit(1)
        self.rfile.read(int(self.headers["Content-Length"]))
        until = time.monotonic() + (self.path == "/work")
        while time.monotonic() < until:
            pass
        answer = {"label": os.environ["LABEL"], "probability": 0.9} if os.environ["LABEL"] else {"detail": "busy"}
        if self.path == "/v2":
            answer = {"outputs": [{"name": name, "data": [value]} for name, value in answer.items()]}
        body = json.dumps(answer).encode()
        self.send_response(404 if turn <= int(os.environ.get("UNREADY", "0")) else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no access log."""


def service(name: str, label: str = "cat", *, busy: bool = False, last: int = 1_000_000) -> Service:
    """A service that exits instead of giving more than `last` answers."""
    module = ("tests.benchmarks.test_comparison",)
    environment = {"LABEL": label, "NAME": name, "LAST": str(last)}
    return Service(name, name, "f32", module, environment, busy_while_idle=busy)


def test_a_probability_is_right_within_the_tolerance_of_a_version():
    """The image has the model's size, so no service resizes it."""
    with running(service("one")) as process:
        process.wait_until_right(KNOWN._replace(probability=0.9019))
        with pytest.raises(LeftOutError, match=r"where cat with 0\.902 is right"):
            process.check(KNOWN._replace(probability=0.9021), "form")


def test_the_tensors_of_the_open_inference_protocol_are_an_answer():
    with running(replace(service("one"), path="/v2", bodies=("v2",))) as process:
        process.wait_until_right(KNOWN)
        with pytest.raises(LeftOutError, match="where dog with"):
            process.check(KNOWN._replace(label="dog"), "v2")


def test_a_service_that_answers_errors_is_not_ready_yet():
    """MLServer and Ray Serve do, until they have loaded the model."""
    started = service("one")
    with running(replace(started, environment=started.environment | {"UNREADY": "3"})) as process:
        process.wait_until_right(KNOWN)


def test_a_service_that_never_gets_ready_is_left_out_with_its_last_answer(monkeypatch):
    monkeypatch.setattr(process_module, "TIMEOUT_SECONDS", 3)
    started = service("one")
    unready = replace(started, environment=started.environment | {"UNREADY": "1_000_000"})
    with running(unready) as process, pytest.raises(LeftOutError, match=r'not ready within 3 s: .*"cat"'):
        process.wait_until_right(KNOWN)


def test_an_invalid_answer_leaves_a_service_out():
    """With its answer as the reason."""
    with running(service("one", label="")) as process, pytest.raises(LeftOutError, match=r"busy.*without a label"):
        process.wait_until_right(KNOWN)


def test_the_next_turn_waits_until_a_service_is_idle():
    """It would slow down the next service."""
    with running(service("one")) as process:
        process.wait_until_right(KNOWN)
        process.wait_until_idle()
        connection = HTTPConnection("127.0.0.1", process.port)
        connection.request("POST", "/work", b"x")  # a second of work; the client disconnects
        connection.close()
        started, before = time.monotonic(), process.read_cpu_seconds()
        process.wait_until_idle()
        assert time.monotonic() - started > 0.8
        assert process.read_cpu_seconds() - before > 0.1  # a second of an idle core, less beside other programs


@pytest.fixture
def turns(monkeypatch):
    """Replace loads; record whose turn it was, in which column, and which services were running."""
    turns = []

    def load(url, sent, body, *, clients, seconds):
        del sent, body
        children = [child for child in psutil.Process().children() if "NAME" in child.environ()]
        names = {child.environ()["PORT"]: child.environ()["NAME"] for child in children}
        awake = {child.environ()["NAME"] for child in children if child.status() != psutil.STATUS_STOPPED}
        turns.append((names[str(urlsplit(url).port)], clients, seconds, awake))
        return Seen(100 * clients, seconds, 1.0, 2.0, 3.0, 0)

    monkeypatch.setattr(comparison, "load", load)
    return turns


def test_services_take_turns_and_busy_ones_are_suspended(turns):
    """Every column in every round, one after the other; suspended services run in their own turns."""
    one, busy = compare([service("one"), service("busy", busy=True)], KNOWN, seconds=2, rounds=2)
    columns = [column for column in COLUMNS if "form" in column.bodies]
    for record in (one, busy):
        assert record.left_out is None
        assert record.start_seconds > 0
        assert record.pss_mib > 1
        assert {title: len(samples) for title, samples in record.samples.items()} == {c.title: 2 for c in columns}
    in_rounds = turns[-2 * 2 * len(columns) :]
    pairs = [tuple(name for name, *_ in in_rounds[start : start + 2]) for start in range(0, len(in_rounds), 2)]
    assert set(pairs) == {("one", "busy"), ("busy", "one")}
    assert all(awake == ({"one", "busy"} if name == "busy" else {"one"}) for name, _, _, awake in in_rounds)


def test_a_service_that_answers_wrongly_or_exits_is_left_out_with_the_reason(turns):
    """The others are measured."""
    gone = Service("gone", "gone", "f32", ("tests.benchmarks.no_such_module",))
    absent = replace(gone, python="/no/such/python")
    records = compare([service("wrong", "dog"), gone, absent, service("right")], KNOWN, seconds=1, rounds=1)
    wrong, ended, missing, right = (record.left_out for record in records)
    assert "where cat with 0.900 is right" in wrong
    assert "no_such_module" in ended
    assert missing == "not installed: /no/such/python"
    assert right is None
    assert {name for name, *_ in turns} == {"right"}


@pytest.mark.skipif(not shutil.which(PROGRAM), reason=f"not installed: {PROGRAM}")
def test_a_service_that_exits_under_load_is_left_out(monkeypatch):
    """During its warm-up; the other is measured."""
    monkeypatch.setattr(comparison, "COLUMNS", COLUMNS[:2])
    gone, right = compare([service("gone", last=3), service("right")], KNOWN, seconds=1, rounds=1)
    assert "wrk says: unable to connect" in gone.left_out
    assert right.left_out is None
    assert set(right.samples) == {column.title for column in COLUMNS[:2]}


def test_a_child_that_exits_while_it_is_read_has_no_memory(monkeypatch):
    """Although it was listed a moment before."""
    with running(service("one")) as process, psutil.Popen(["true"]) as child:
        child.wait()
        monkeypatch.setattr(process, "_list_tree", lambda: [process._root, child])
        assert process.read_pss_mib() > 0


def test_the_time_of_a_child_that_exits_while_it_is_read_is_its_parents(monkeypatch):
    """The service is read again."""
    with running(service("one")) as process, psutil.Popen(["true"]) as child:
        child.wait()
        trees = iter([[process._root, child], [process._root]])
        monkeypatch.setattr(process, "_list_tree", lambda: next(trees, [process._root]))
        times = process._root.cpu_times()
        assert process.read_cpu_seconds() >= times.user + times.system


@pytest.mark.parametrize("read", ["read_cpu_seconds", "read_pss_mib", "read_rss_mib"])
def test_a_service_that_has_exited_is_left_out(read):
    with running(service("one")) as process:
        process._root.kill()
        process._process.wait()
        with pytest.raises(LeftOutError, match="it exited without a message"):
            getattr(process, read)()


def test_a_service_without_multipart_gets_its_own_body_in_the_same_columns():
    """And none in the columns of raw bodies."""
    theirs = replace(service("theirs"), bodies=("v2",))
    chosen = {column.title: column.choose_body(theirs) for column in COLUMNS}
    assert {title for title, body in chosen.items() if body == "v2"} == {c.title for c in COLUMNS if "form" in c.bodies}
    assert set(chosen.values()) == {"v2", None}


def test_a_slow_column_is_measured_for_longer(turns, monkeypatch):
    """If some clients got no answer in the warm-up."""
    quick = comparison.load

    def load(url, sent, body, *, clients, seconds):
        seen = quick(url, sent, body, clients=clients, seconds=seconds)
        return seen._replace(requests=clients - 1) if clients > 1 else seen

    monkeypatch.setattr(comparison, "load", load)
    compare([service("slow")], KNOWN, seconds=2, rounds=1)
    assert {(clients, seconds) for _, clients, seconds, _ in turns[-3:]} == {(1, 2), (32, 8)}


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answers).serve_forever()
