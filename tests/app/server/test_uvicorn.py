"""What app.server uses of uvicorn that uvicorn does not document."""

import inspect
import re
from pathlib import Path

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import Server, ServerState

UPGRADE = f"uvicorn {uvicorn.__version__} changed {{}}: re-read app/server/connection.py and lifecycle.py against it"

ATTRIBUTES = {
    HttpToolsProtocol: {
        "config", "connections", "cycle", "flow", "headers", "loop", "parser", "timeout_keep_alive", "transport", "url",
    },
    RequestResponseCycle: {"body", "keep_alive", "on_response", "response_started", "transport"},
    ServerState: {"connections", "default_headers", "tasks"},
    Server: {"config", "force_exit", "server_state", "should_exit", "started"},
}  # fmt: skip
METHODS = {
    HttpToolsProtocol: {
        "connection_lost", "connection_made", "on_body", "on_headers_complete", "on_message_begin",
        "on_message_complete", "on_response_complete", "shutdown",
    },
    FlowControl: {"pause_reading", "resume_reading"},
    Server: {"handle_exit", "on_tick", "run", "shutdown", "startup"},
}  # fmt: skip


def test_uvicorn_is_pinned_below_its_next_minor_version():
    """Its private classes may change with each, so upgrading is a decision."""
    pyproject = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    major, minor = map(int, uvicorn.__version__.split(".")[:2])
    assert re.search(rf'"uvicorn>={major}\.{minor}(\.\d+)?,<{major}\.{minor + 1}"', pyproject)


@pytest.mark.parametrize("owner", ATTRIBUTES)
def test_uvicorn_still_has_the_attributes(owner):
    """Each class sets in its constructor what `Connection` and `Server` read."""
    assigned = set(re.findall(r"self\.(\w+)(?:: [^=\n]+)? = ", inspect.getsource(owner.__init__)))
    assert not (missing := ATTRIBUTES[owner] - assigned - {"url"}), UPGRADE.format(f"{owner.__name__}'s {missing}")
    assert "self.url = " in inspect.getsource(HttpToolsProtocol)


@pytest.mark.parametrize("owner", METHODS)
def test_uvicorn_still_has_the_methods(owner):
    """Each class has the methods that are overridden or called."""
    missing = {name for name in METHODS[owner] if not callable(getattr(owner, name, None))}
    assert not missing, UPGRADE.format(f"{owner.__name__}'s {missing}")


def test_uvicorn_closes_the_transport_before_it_reports_the_end_of_a_response():
    """`Connection` replaces the transport of a response to decide how to close."""
    source = inspect.getsource(RequestResponseCycle.send)
    close = source.rindex("self.transport.close()")
    assert close < source.index("self.on_response()"), UPGRADE.format("the order at the end of a response")
