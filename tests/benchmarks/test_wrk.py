"""The load generator: what it sends, and how its output is parsed."""

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.pictures import encode_body
from benchmarks.services import LeftOutError
from benchmarks.wrk import PROGRAM, Seen, load, parse_output

PICTURES = [b"\x89PNG\r\n\x1a\n" + bytes([number]) * 1000 for number in range(3)]
SEEN = Seen(900, 3.0, 1.5, 2.5, 9.5, 4)


class Echo(BaseHTTPRequestHandler):
    """Records requests, and rejects every fourth one."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.headers["Content-Type"], body))
        self.send_response(400 if len(self.server.seen) % 4 == 0 else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_last_line_of_json_has_the_results():
    """The line follows wrk's own text."""
    noise = "Running 3s test\n{not the last one}\n"
    assert parse_output(noise + json.dumps(SEEN._asdict()) + "\n") == SEEN


def test_output_without_json_is_an_error_with_the_output():
    """So the user sees wrk's message."""
    with pytest.raises(LeftOutError, match="unable to connect"):
        parse_output("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_the_rate_counts_successful_requests():
    """Failed ones do not count."""
    assert SEEN.per_second == 300


@pytest.mark.skipif(not shutil.which(PROGRAM), reason=f"not installed: {PROGRAM}")
class TestLoad:
    """Each of these tests loads a server for a second."""

    def test_images_are_sent_unchanged_in_turn(self, server):
        """As the request body."""
        seen = load(f"http://127.0.0.1:{server.server_port}/x", PICTURES, "raw", clients=1, seconds=1)
        first = PICTURES.index(server.seen[0][1])  # wrk calls `request` once before the load
        assert [body for _, body in server.seen[:6]] == [PICTURES[(first + turn) % 3] for turn in range(6)]
        assert {kind for kind, _ in server.seen} == {"image/png"}
        assert seen.requests > 3
        assert 0 < seen.p50_ms <= seen.p95_ms <= seen.p99_ms

    def test_errors_are_counted_separately(self, server):
        """They are not successful requests."""
        seen = load(f"http://127.0.0.1:{server.server_port}/x", PICTURES, "raw", clients=4, seconds=1)
        total = seen.requests + seen.errors
        assert seen.errors == pytest.approx(total / 4, abs=4)

    def test_a_form_is_sent_with_its_boundary(self, server):
        """Which is in the content type."""
        load(f"http://127.0.0.1:{server.server_port}/x", PICTURES, "form", clients=1, seconds=1)
        assert set(server.seen) == {encode_body(picture, "form") for picture in PICTURES}
