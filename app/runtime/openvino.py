"""OpenVINO as the service wants it: telling nobody, and holding no file open.

Imports nothing else, so that the process that tries a graph first (`app.versions.preflight`) starts soon.
"""

import sys

# OpenVINO reports every import to its makers if this module is there. The service calls nobody.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # how Python notes that there is none
from openvino import Core  # noqa: E402 -- only now


def make_core() -> Core:
    """Return what reads graphs and compiles them."""
    core = Core()
    # A mapped file that is overwritten in place ends the process that serves from it.
    core.set_property({"ENABLE_MMAP": False})
    return core
