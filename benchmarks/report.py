"""Reduces the results of all rounds to medians and ratios, and renders tables in Markdown."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from benchmarks.services import Service
from benchmarks.wrk import Seen
from training.table import draw_table

HEADER = ["service", "precision", "requests/s", "rounds", "ours ÷ it", "p50", "p95", "p99", "errors", "CPU per request"]


class Sample(NamedTuple):
    """One column of one service in one round."""

    seen: Seen
    cpu_seconds: float  # of all the service's processes


@dataclass
class Record:
    """The results of one service."""

    service: Service
    start_seconds: float | None = None  # until the first correct answer
    pss_mib: float | None = None  # after some load, while no other service ran
    samples: dict[str, list[Sample]] = field(default_factory=dict)  # by column title, one per round
    slow: set[str] = field(default_factory=set)  # titles of columns in which answers can take more than a second
    left_out: str | None = None  # the reason, if it was left out


@dataclass(frozen=True)
class Cell:
    """One service under one load: medians and extremes over the rounds."""

    per_second: float
    lowest_per_second: float
    highest_per_second: float
    p50_ms: float | None  # None without an answer
    p95_ms: float | None
    p99_ms: float | None
    errors: int  # in all rounds
    cpu_ms: float | None  # per request
    ratio: float | None  # median over the rounds of our requests ÷ its requests; None if it had none


@dataclass(frozen=True)
class Row:
    """One service."""

    name: str
    title: str
    precision: str
    ours: bool
    left_out: str | None
    start_seconds: float | None
    pss_mib: float | None
    cells: dict[str, Cell]


def make_rows(records: list[Record]) -> list[Row]:
    """Reduce the rounds to medians; compare int8 with our int8, and the other precisions with our other one."""
    return [_make_row(record, _find_ours(records, record)) for record in records]


def render_comparison(rows: list[Row]) -> str:
    """Render an overview with a column per load, then a table with all results for each load."""
    titles = list(dict.fromkeys(title for row in rows for title in row.cells))
    present = [row for row in rows if row.cells]
    header = ["requests/s", "precision", *titles, "memory", "start"]
    text = draw_table(header, (_list_rates(row, titles) for row in present), numbers=True)
    for title in titles:
        cells = [(row, row.cells[title]) for row in present if title in row.cells]
        details = (_list_details(row, cell) for row, cell in cells)
        text += f"\n### {title}\n\n" + draw_table(HEADER, details, numbers=True)
    if left_out := [row for row in rows if row.left_out]:
        text += "\nLeft out:\n\n" + "".join(f"- {row.name}: {row.left_out}\n" for row in left_out)
    return text


def _make_row(record: Record, ours: Record | None) -> Row:
    service = record.service
    cells = {
        title: _make_cell(samples, ours.samples.get(title, []) if ours else [])
        for title, samples in record.samples.items()
    }
    return Row(
        name=service.name,
        title=service.title,
        precision=service.precision,
        ours=service.ours,
        left_out=record.left_out,
        start_seconds=record.start_seconds,
        pss_mib=record.pss_mib,
        cells=cells,
    )


def _make_cell(samples: list[Sample], ours: list[Sample]) -> Cell:
    rates = [sample.seen.per_second for sample in samples]
    answered = [sample for sample in samples if sample.seen.requests]
    pairs = zip(ours, rates, strict=False)  # one of the two may have been left out partway
    return Cell(
        per_second=median(rates),
        lowest_per_second=min(rates),
        highest_per_second=max(rates),
        p50_ms=_find_median(sample.seen.p50_ms for sample in answered),
        p95_ms=_find_median(sample.seen.p95_ms for sample in answered),
        p99_ms=_find_median(sample.seen.p99_ms for sample in answered),
        errors=sum(sample.seen.errors for sample in samples),
        cpu_ms=_find_median(1000 * sample.cpu_seconds / sample.seen.requests for sample in answered),
        ratio=_find_median(sample.seen.per_second / rate for sample, rate in pairs) if all(rates) else None,
    )


def _list_rates(row: Row, titles: list[str]) -> list[str]:
    rates = (row.cells[title].per_second if title in row.cells else None for title in titles)
    return [
        row.title,
        row.precision,
        *(_show(rate, "{:.0f}") for rate in rates),
        _show(row.pss_mib, "{:.0f} MiB"),
        _show(row.start_seconds, "{:.1f} s"),
    ]


def _list_details(row: Row, cell: Cell) -> list[str]:
    return [
        row.title,
        row.precision,
        f"{cell.per_second:.0f}",
        f"{cell.lowest_per_second:.0f}–{cell.highest_per_second:.0f}",
        _show(cell.ratio, "{:.2f}"),
        *(_show(value, "{:.1f} ms") for value in (cell.p50_ms, cell.p95_ms, cell.p99_ms)),
        str(cell.errors),
        _show(cell.cpu_ms, "{:.2f} ms"),
    ]


def _find_ours(records: list[Record], record: Record) -> Record | None:
    quantized = record.service.precision == "int8"
    found = (other for other in records if other.service.ours and (other.service.precision == "int8") == quantized)
    return next(found, None)


def _find_median(values: Iterable[float]) -> float | None:
    found = list(values)
    return median(found) if found else None


def _show(value: float | None, pattern: str) -> str:
    return "–" if value is None else pattern.format(value)
