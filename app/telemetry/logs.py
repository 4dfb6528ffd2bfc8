"""The log: one JSON object per line, or plain text on a terminal, written by a thread.

Standard error can block, for example if it is a pipe without a reader. Only the thread waits for it: lines go through a
queue, and are dropped and counted when it is full.
"""

import logging
import os
import queue
import re
import sys
import threading
from collections.abc import Callable
from typing import TextIO

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from app.settings import LogFormat
from app.telemetry.timings import current

# A few seconds of log under full load, and a few megabytes.
MAX_WAITING_LINES = 5000
# How long the process waits for standard error before it exits.
_FLUSH_SECONDS = 1

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# Line ends and terminal control characters.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class LogQueue(logging.Handler):
    """Formats records, and queues the lines for a thread that writes them.

    `count_dropped` is called for each lost line, in any thread.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.count_dropped: Callable[[], None] = lambda: None
        self._stream = stream
        # Its `put` is reentrant, unlike that of `queue.Queue`: signal handlers and destructors can log.
        self._lines: queue.SimpleQueue[str | threading.Event | None] = queue.SimpleQueue()
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record's line, or drop it."""
        if self._lines.qsize() >= MAX_WAITING_LINES:
            self.count_dropped()
            return
        try:
            self._lines.put(self.format(record))
        except Exception:  # noqa: BLE001 -- as logging's own handlers do
            self.handleError(record)

    def flush(self) -> None:
        """Wait until the lines are written, for at most `_FLUSH_SECONDS`."""
        written = threading.Event()
        self._lines.put(written)
        written.wait(_FLUSH_SECONDS)

    def close(self) -> None:
        """End the thread after the queued lines."""
        self._lines.put(None)
        super().close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            if isinstance(line, threading.Event):
                line.set()
                continue
            try:
                self._stream.write(f"{line}\n")
                self._stream.flush()
            except (OSError, ValueError):  # the reader of the pipe is gone, the disk is full, the stream is closed
                self.count_dropped()


def configure_logs(level: str, log_format: LogFormat) -> LogQueue:
    """Send the log of this process and its libraries to standard error.

    Args:
        level: the least severe level that is logged.
        log_format: `auto` is `text` on a terminal, and `json` elsewhere.
    """
    log = LogQueue(sys.stderr)
    if log_format == "text" or (log_format == "auto" and sys.stderr.isatty()):
        log.setFormatter(_TextFormatter(_TEXT))
    else:
        log.setFormatter(
            JsonFormatter(
                ("levelname", "name", "message"),
                style=",",
                rename_fields={"levelname": "level", "name": "logger", "exc_info": "traceback"},
                timestamp="time",
                reserved_attrs=[*RESERVED_ATTRS, "color_message"],  # uvicorn's: the same message with colours
            )
        )
    log.addFilter(_add_request_id)
    # No line shows where and in which thread it was logged. See "Optimization" in Python's logging HOWTO.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001
    logging.basicConfig(level=level.upper(), handlers=[log])
    logging.captureWarnings(capture=True)  # Python would write them to standard error itself
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # the client gets its errors
    logging.getLogger("PIL").setLevel(logging.INFO)  # below, it logs the contents of client files
    return log


def open_closed_streams() -> None:
    """Open the null device for standard streams that are closed at the start.

    Otherwise the next socket or file would take their numbers, and libraries would write into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: PTH123, SIM115


class _TextFormatter(logging.Formatter):
    """Writes one line per record and then its traceback; escapes control characters and appends the request id."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's
        line = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), super().formatMessage(record))
        request_id = getattr(record, "request_id", "")
        return f"{line} [{request_id}]" if request_id else line


def _add_request_id(record: logging.LogRecord) -> bool:
    """Add the request's id to every record that is logged for it, including those of libraries."""
    if (trace := current.get()) and trace.request_id:
        record.request_id = trace.request_id
    return True
