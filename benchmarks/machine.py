"""What machine a figure was measured on."""

import os
import platform
from pathlib import Path


def describe_machine() -> str:
    """Return processor, cores and memory in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    family = f" (family {facts['cpu family']}, model {facts['model']})" if "cpu family" in facts else ""
    bf16 = ", bfloat16" if {"avx512_bf16", "amx_bf16"} & set(facts.get("flags", "").split()) else ""
    model = facts.get("model name", platform.processor() or platform.machine())
    return f"{model}{family}{bf16}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB"
