"""Creates OpenVINO's `Core` with telemetry and memory-mapped weights turned off."""

import sys

# If this module is installed, OpenVINO sends telemetry at every import.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None makes its import fail
from openvino import Core  # noqa: E402 -- after the line above


def make_core() -> Core:
    """Return a `Core`, which reads and compiles graphs."""
    core = Core()
    # Overwriting a memory-mapped file in place would end the process that serves from it.
    core.set_property({"ENABLE_MMAP": False})
    return core
