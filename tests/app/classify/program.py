"""Runs `python -m app.classify`, in this process or in one of its own."""

import subprocess
import sys
from pathlib import Path

from app.classify import command

ROOT = Path(__file__).parents[3]


def run(*arguments: object) -> int:
    return command.main([str(argument) for argument in arguments])


def start(*arguments: str, **options: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "app.classify", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=60, **options)
