"""Collects the timings, problems and model of a request, for the log and the metrics. Knows no HTTP.

The trace is in a context variable, so that code anywhere in the request, and in its tasks, can add to it. Outside a
request the functions do nothing.
"""

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, get_args

Stage = Literal["receive", "decode", "queue", "inference"]
STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclass
class Trace:
    """The trace of one request. A request with several images has several timings of a stage."""

    request_id: str = ""
    stages: list[tuple[Stage, float]] = field(default_factory=list)  # seconds
    problems: list[str] = field(default_factory=list)  # codes, see `app.http.problems`
    model: str | None = None
    version: int | None = None


current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def note_stage(stage: Stage, seconds: float) -> None:
    """Note the time that one image, or the body, spent in a stage."""
    if trace := current.get():
        trace.stages.append((stage, seconds))


def note_problem(code: str) -> None:
    """Note that the request, or one of its images, was answered with a problem of this code."""
    if trace := current.get():
        trace.problems.append(code)


def note_model(name: str, version: int) -> None:
    """Note which model answered."""
    if trace := current.get():
        trace.model, trace.version = name, version
