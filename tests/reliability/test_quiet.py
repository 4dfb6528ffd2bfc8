"""The service makes no outbound connection, and does not try to."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.app.process import ROOT

# Runs in a network namespace with a loopback and no route. The kernel counts every packet without a route, from
# native libraries as well as from Python.
SCRIPT = r"""
import fcntl, socket, struct, sys
sys.path.insert(0, {root!r})
with socket.socket() as any_socket:  # ip link set lo up
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))

def count_strays():
    names, values = [line.split() for line in open("/proc/net/snmp") if line.startswith("Ip:")]
    return int(dict(zip(names, values))["OutNoRoutes"])

from tests.app.process import Process, ask
from tests.app.fakes import encode

process = Process(model_dir={models!r}, drain_seconds=0, model_poll_seconds=0.05)
try:
    process.wait_until("ok")
    connection = process.connect()
    for path in ("/health", "/model", "/openapi.json"):
        assert ask(connection, "GET", path)[0] == 200
    for body, status in ((encode(), 200), (b"text", 415), (encode()[:60], 422)):
        assert ask(connection, "POST", "/predict", body)[0] == status
    connection.close()
    process.signal()
    assert process.wait() == 0
finally:
    process.end()
print("strays", count_strays())
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:  # a control, which must be counted
    try:
        other.connect(("192.0.2.1", 53))
    except OSError:
        pass
print("control", count_strays())
"""


def test_the_service_makes_no_outbound_connection(models, tell, tmp_path):
    """Neither at the start nor while it serves: no telemetry, DNS query or download."""
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-rn", "true"], check=False).returncode:
        pytest.skip("network namespaces can't be made here")
    script = SCRIPT.format(root=str(ROOT), models=str(models))
    # OpenVINO would turn its telemetry off in CI jobs.
    environment = {name: value for name, value in os.environ.items() if name not in {"CI", "TF_BUILD", "JENKINS_URL"}}
    done = subprocess.run(
        [unshare, "-rn", sys.executable, "-c", script],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    counts = dict(line.split() for line in done.stdout.splitlines())
    assert int(counts["control"]) > int(counts["strays"]), "the control was not counted: this test would see nothing"
    assert int(counts["strays"]) == 0
    tell("start, serving and stop in a network without outbound access: outbound connections", 1, int(counts["strays"]))
