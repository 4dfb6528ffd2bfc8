"""What is told of the machine."""

import pytest

from benchmarks import machine

CPUINFO = """processor\t: 0
cpu family\t: 6
model\t\t: 207
model name\t: A Processor
"""


@pytest.fixture(params=["", "avx512_bf16", "amx_bf16 amx_int8"])
def flags(request, monkeypatch):
    facts = [line.partition(":") for line in CPUINFO.splitlines()]
    monkeypatch.setattr(machine, "_read_cpuinfo", lambda: {name.strip(): value.strip() for name, _, value in facts})
    monkeypatch.setattr(machine, "read_cpu_flags", lambda: {"fpu", "avx2", "avx512_vnni", *request.param.split()})
    return request.param


def test_the_instruction_sets_that_matter_are_named(flags):
    told = machine.describe_machine()
    assert told.startswith("A Processor (family 6, model 207), with avx2 avx512_vnni")
    assert all(flag in told for flag in flags.split())
    assert ("no bfloat16" in told) is not machine.has_bf16()


def test_bfloat16_is_what_the_flags_say(flags):
    assert machine.has_bf16() is bool(flags)


def test_libraries_that_are_not_there_are_left_out():
    assert " numpy 2." in machine.describe_libraries("numpy", "no-such-library")
    assert "no-such-library" not in machine.describe_libraries("numpy", "no-such-library")
