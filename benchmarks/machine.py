"""What machine a figure was measured on, and with which libraries."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from app.runtime import count_cpus, read_cpu_flags

# What a runtime's speed hangs on, most of all that of bfloat16 and of int8.
INSTRUCTION_SETS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def describe_machine() -> str:
    """Return processor, cores, memory and the instruction sets that matter in one line."""
    facts = _read_cpuinfo()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    family = f" (family {facts['cpu family']}, model {facts['model']})" if "cpu family" in facts else ""
    flags = read_cpu_flags()
    found = [name for name in INSTRUCTION_SETS if name in flags]
    sets = f", with {' '.join(found)}" if found else ""
    bf16 = "" if has_bf16() else ", no bfloat16"
    model = facts.get("model name", platform.processor() or platform.machine())
    return f"{model}{family}{sets}{bf16}, {count_cpus()} cores, {memory:.0f} GiB"


def has_bf16() -> bool:
    """Whether the processor computes in bfloat16 itself; where it does not, a runtime would emulate it, slowly."""
    return bool({"avx512_bf16", "amx_bf16"} & read_cpu_flags())


def describe_libraries(*names: str) -> str:
    """Return Python's version and those of the named packages, of which those that are not installed are left out."""
    found = [f"Python {platform.python_version()}"]
    for name in names:
        try:
            found.append(f"{name} {version(name).partition('-')[0]}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _read_cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
