"""The description of the machine."""

import sysconfig
from pathlib import Path

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


def test_libraries_of_the_other_environment_are_described(tmp_path):
    """Unless they are in this one, too."""
    folder = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path)}))
    for name in ("numpy", "theirs"):
        package = folder / f"{name}-0.1.dist-info"
        package.mkdir(parents=True)
        (package / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n", encoding="utf-8")
    told = machine.describe_libraries("numpy", "theirs", other=tmp_path)
    assert told.endswith(", theirs 0.1")
    assert " numpy 2." in told


def test_missing_libraries_are_left_out():
    """Without an error."""
    assert " numpy 2." in machine.describe_libraries("numpy", "no-such-library")
    assert "no-such-library" not in machine.describe_libraries("numpy", "no-such-library")
