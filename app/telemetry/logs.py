"""How the log looks: one JSON object a line for programs, plain text for a person at a terminal."""

import logging
import re
import sys

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from app.settings import LogFormat
from app.telemetry.timings import current

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# Line ends, and what terminals take for orders.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure_logs(level: str, log_format: LogFormat) -> None:
    """Send the log of this process, its libraries' included, to standard error.

    Args:
        level: the least severe that is shown.
        log_format: `auto` is `text` on a terminal, and `json` elsewhere.
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
                reserved_attrs=[*RESERVED_ATTRS, "color_message"],  # uvicorn's, the same message with colours
            )
        )
    handler.addFilter(_name_request)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("PIL").setLevel(logging.INFO)  # below, it tells what is in a client's picture


class _TextFormatter(logging.Formatter):
    """One line for each record but for its traceback, whatever names of files and versions hold; ends with its id."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's
        line = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), super().formatMessage(record))
        request_id = getattr(record, "request_id", "")
        return f"{line} [{request_id}]" if request_id else line


def _name_request(record: logging.LogRecord) -> bool:
    """Give every line that is written while a request is served, a library's traceback too, that request's id."""
    if (trace := current.get()) and trace.request_id:
        record.request_id = trace.request_id
    return True
