"""The processor: how many CPUs this process may use, which arithmetic they have, and their name."""

import math
import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
# These instructions accumulate 8-bit products in 32 bits. On other CPUs, OpenVINO accumulates in 16 bits, which can
# overflow and lower the accuracy.
INT8_FLAGS = {"amx_int8", "avx512_vnni", "avx_vnni"}


def count_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many CPUs this process may use: its affinity, or the cgroup's quota (v2 or v1) if that is less."""
    cpus = count_affine_cpus()
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{part}_us").read_text() for part in ("quota", "period"))
        if float(quota) > 0:
            cpus = min(cpus, math.ceil(float(quota) / float(period)))
    except (OSError, ValueError):  # no cgroup, or "max": no quota
        pass
    return cpus


def count_affine_cpus() -> int:
    """Return how many CPUs this process may run on, without regard to quotas."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_bf16() -> bool:
    """Whether the processor computes in bfloat16 natively; otherwise a runtime emulates it slowly."""
    return bool(BF16_FLAGS & read_cpu_flags())


def has_int8() -> bool:
    """Whether the processor computes in 8-bit integers without overflow."""
    return bool(INT8_FLAGS & read_cpu_flags())


def read_cpu_flags(cpuinfo: Path = CPUINFO) -> set[str]:
    """Return Linux's names for the instruction sets of this machine's CPU; empty on CPUs other than x86.

    OpenVINO's own list can't be used: it reports int8 on every CPU.
    """
    return set(_read_facts(cpuinfo).get("flags", "").split())


def describe_cpu(cpuinfo: Path = CPUINFO) -> str:
    """Return the processor's name as Linux has it, or else its architecture."""
    facts = _read_facts(cpuinfo)
    # Clouds hide a processor's product number; its family and model identify it.
    family = f" (family {facts['cpu family']}, model {facts['model']})" if "cpu family" in facts else ""
    return facts.get("model name", platform.machine()) + family


def _read_facts(cpuinfo: Path) -> dict[str, str]:
    """Read Linux's facts about the last processor; all processors of a machine are the same."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
