"""The environments of `make bench`."""

import shutil
import subprocess

import pytest

from benchmarks.pictures import ROOT


def read_pins(path):
    return {line.partition("==")[0] for line in path.read_text(encoding="utf-8").splitlines() if "==" in line}


@pytest.mark.parametrize(
    ("file", "differ"),
    [
        (
            "constraints.txt",
            {f"opentelemetry-{part}" for part in ("api", "exporter-prometheus", "sdk", "semantic-conventions")},
        ),
        ("mlserver-constraints.txt", {"fastapi", "importlib_resources", "protobuf", "starlette"}),
    ],
)
def test_the_constraints_do_not_repeat_those_of_the_service(file, differ):
    """Except the pins that differ: the Makefile removes these from the service's."""
    assert read_pins(ROOT / "constraints.txt") & read_pins(ROOT / "benchmarks" / file) == differ


def test_the_load_generator_is_checked_first(tmp_path):
    """Without wrk, `make bench` installs nothing."""
    command = [shutil.which("make"), "bench", f"BENCH={tmp_path / 'venv'}"]
    made = subprocess.run(command, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert made.returncode == 2
    assert made.stderr.startswith("not installed: wrk\n")
    assert not (tmp_path / "venv").exists()
    assert made.stdout == ""
