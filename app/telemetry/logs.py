"""The log format: one JSON object per line for programs, plain text for people at a terminal."""

import logging
import re
import sys

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from app.settings import LogFormat
from app.telemetry.timings import current

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# Line separators, and characters that control terminals.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure_logs(level: str, log_format: LogFormat) -> None:
    """Send the log of this process and its libraries to standard error.

    Args:
        level: the lowest level that is logged.
        log_format: `auto` is `text` on a terminal and `json` elsewhere.
    """
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "text" or (log_format == "auto" and sys.stderr.isatty()):
        handler.setFormatter(_TextFormatter(_TEXT))
    else:
        handler.setFormatter(
            JsonFormatter(
                ("levelname", "name", "message"),
                style=",",
                rename_fields={"levelname": "level", "name": "logger", "exc_info": "traceback"},
                timestamp="time",
                reserved_attrs=[*RESERVED_ATTRS, "color_message"],  # uvicorn's copy of the message with colours
            )
        )
    handler.addFilter(_name_request)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # the client gets the error in a malformed form
    logging.getLogger("PIL").setLevel(logging.INFO)  # DEBUG shows the contents of client images


class _TextFormatter(logging.Formatter):
    """Formats a record as one line, escaping control characters, followed by the request id and any traceback."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's
        line = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), super().formatMessage(record))
        request_id = getattr(record, "request_id", "")
        return f"{line} [{request_id}]" if request_id else line


def _name_request(record: logging.LogRecord) -> bool:
    """Add the request id to every record that is logged while a request is served, including libraries' records."""
    if (trace := current.get()) and trace.request_id:
        record.request_id = trace.request_id
    return True
