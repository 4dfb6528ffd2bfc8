"""The environment that `make bench` makes."""

from benchmarks.pictures import ROOT


def read_pins(path):
    return {line.partition("==")[0] for line in path.read_text(encoding="utf-8").splitlines() if "==" in line}


def test_its_constraints_hold_only_what_is_besides_those_of_the_service():
    """But for the one pin that differs, which the Makefile leaves out of the others."""
    both = read_pins(ROOT / "constraints.txt") & read_pins(ROOT / "benchmarks" / "constraints.txt")
    assert both == {"opentelemetry-api"}
