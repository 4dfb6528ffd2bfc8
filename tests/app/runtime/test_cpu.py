"""Behaviour of app.runtime.cpu."""

import platform

import pytest

from app.runtime.cpu import count_cpus, describe_cpu, has_bf16, has_int8, read_cpu_flags

CPUINFO = """processor\t: 0
cpu family\t: 6
model\t\t: 207
model name\t: A Processor
flags\t\t: fpu avx512_bf16 sse

"""


@pytest.fixture
def cpuinfo(tmp_path):
    """Replace /proc/cpuinfo by one with two processors."""
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO * 2)
    return path


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "10000 100000"}, 1),
        ({"cpu.max": "1600000 100000"}, 8),
        ({"cpu.max": "nonsense"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
    ],
)
def test_threads_follow_the_containers_quota(tmp_path, monkeypatch, files, cpus):
    """A container with two CPUs on a host with many runs two threads (cgroup v2 and v1)."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert count_cpus(tmp_path) == cpus


def test_cpu_flags_are_read(cpuinfo, tmp_path):
    """From /proc/cpuinfo, if it exists."""
    assert read_cpu_flags(cpuinfo) == {"fpu", "avx512_bf16", "sse"}
    assert read_cpu_flags(tmp_path / "none") == set()


def test_the_processor_is_named_with_its_family(cpuinfo, tmp_path):
    """If Linux does not know its name, by its architecture."""
    assert describe_cpu(cpuinfo) == "A Processor (family 6, model 207)"
    assert describe_cpu(tmp_path / "none") == platform.machine()


@pytest.mark.parametrize(
    ("flags", "bf16", "int8"),
    [
        (set(), False, False),
        ({"avx2", "avx512f", "avx512bw"}, False, False),
        ({"avx512_bf16"}, True, False),
        ({"avx_vnni"}, False, True),
        ({"amx_bf16", "amx_int8"}, True, True),
    ],
)
def test_native_precisions_follow_the_flags(monkeypatch, flags, bf16, int8):
    """bfloat16 and int8."""
    monkeypatch.setattr("app.runtime.cpu.read_cpu_flags", lambda: flags)
    assert (has_bf16(), has_int8()) == (bf16, int8)
