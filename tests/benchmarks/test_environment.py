"""The environment of `make bench`."""

import shutil
import subprocess

from benchmarks.pictures import ROOT


def read_pins(path):
    return {line.partition("==")[0] for line in path.read_text(encoding="utf-8").splitlines() if "==" in line}


def test_its_constraints_do_not_repeat_those_of_the_service():
    """Except the one pin that differs, which the Makefile removes from the others."""
    both = read_pins(ROOT / "constraints.txt") & read_pins(ROOT / "benchmarks" / "constraints.txt")
    assert both == {"opentelemetry-api"}


def test_the_load_generator_is_checked_first(tmp_path):
    """Without wrk, `make bench` installs nothing."""
    command = [shutil.which("make"), "bench", f"BENCH={tmp_path / 'venv'}"]
    made = subprocess.run(command, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert made.returncode == 2
    assert made.stderr.startswith("not installed: wrk\n")
    assert not (tmp_path / "venv").exists()
    assert made.stdout == ""
