"""Describes the machine and the libraries of a measurement."""

import os
import platform
import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path

from app.runtime.cpu import count_cpus, describe_cpu, has_bf16, read_cpu_flags

# Instruction sets that determine a runtime's speed, mainly in bfloat16 and int8.
INSTRUCTION_SETS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def describe_machine() -> str:
    """Return CPU, instruction sets, cores and memory in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    flags = read_cpu_flags()
    found = [name for name in INSTRUCTION_SETS if name in flags]
    sets = f", with {' '.join(found)}" if found else ""
    bf16 = "" if has_bf16() else ", no bfloat16"
    return f"{describe_cpu()}{sets}{bf16}, {count_cpus()} cores, {memory:.0f} GiB"


def describe_libraries(*names: str, other: Path | None = None) -> str:
    """Return the versions of Python and of the named packages in this environment or, if not there, in the `other`."""
    path = [*sys.path, sysconfig.get_path("purelib", vars={"base": str(other)})] if other else sys.path
    packages = {name: next(iter(distributions(name=name, path=path)), None) for name in names}
    found = [f"{name} {package.version.partition('-')[0]}" for name, package in packages.items() if package]
    return ", ".join([f"Python {platform.python_version()}", *found])
