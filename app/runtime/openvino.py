"""Creates OpenVINO's `Core` with telemetry and memory-mapped weights turned off."""

import sys

# OpenVINO reports every import to its makers if this module is installed.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None makes its import fail
from openvino import Core  # noqa: E402 -- after the line above


def make_core() -> Core:
    """Return a `Core`, which reads and compiles graphs."""
    core = Core()
    # Overwriting a memory-mapped file in place would end the process that serves from it.
    core.set_property({"ENABLE_MMAP": False})
    return core
