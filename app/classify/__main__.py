"""Runs `python -m app.classify`."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # exit at once, even while threads read

import sys

from app.classify.command import run

sys.exit(run())
