"""The description of the machine."""

import pytest

from benchmarks import machine


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (set(), "A Processor, no bfloat16, "),
        ({"fpu", "avx2", "avx512_vnni"}, "A Processor, with avx2 avx512_vnni, no bfloat16, "),
        ({"avx2", "amx_bf16", "amx_int8"}, "A Processor, with avx2 amx_bf16 amx_int8, "),
    ],
)
def test_the_relevant_instruction_sets_are_listed(monkeypatch, flags, told):
    """Other CPU flags are not."""
    monkeypatch.setattr(machine, "describe_cpu", lambda: "A Processor")
    monkeypatch.setattr(machine, "read_cpu_flags", lambda: flags)
    monkeypatch.setattr("app.runtime.cpu.read_cpu_flags", lambda: flags)
    monkeypatch.setattr(machine, "count_cpus", lambda: 3)
    assert machine.describe_machine().startswith(f"{told}3 cores, ")


def test_missing_libraries_are_left_out():
    """Without an error."""
    assert " numpy 2." in machine.describe_libraries("numpy", "no-such-library")
    assert "no-such-library" not in machine.describe_libraries("numpy", "no-such-library")
