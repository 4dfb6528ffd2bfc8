"""How the log looks: one JSON object a line for programs, plain text for a person at a terminal."""

import logging
import sys
from typing import Literal

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from app.trace import current

LogFormat = Literal["auto", "json", "text"]

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def configure_logs(level: str, log_format: LogFormat) -> None:
    """Send the log of this process, its libraries' included, to standard error.

    Args:
        level: the least severe that is shown.
        log_format: `auto` is `text` on a terminal, and `json` elsewhere.
    """
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "text" or (log_format == "auto" and sys.stderr.isatty()):
        handler.setFormatter(logging.Formatter(_TEXT))
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
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # what is wrong with a form, its sender is told


def _name_request(record: logging.LogRecord) -> bool:
    """Give every line that is written while a request is served, a library's traceback too, that request's id."""
    if (trace := current.get()) and trace.request_id:
        record.request_id = trace.request_id
    return True
