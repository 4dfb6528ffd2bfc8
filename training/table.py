"""Renders tables in Markdown."""

from collections.abc import Iterable, Sequence


def draw_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> str:
    """Return a table. With `numbers`, all columns except the first are aligned to the right.

    Cells may contain any text, such as class names: it is escaped.
    """
    rest = "---:" if numbers else "---"
    lines = [header, ["---", *(rest for _ in header[1:])], *rows]
    return "".join(f"| {' | '.join(map(_escape, line))} |\n" for line in lines)


def _escape(cell: str) -> str:
    return " ".join(cell.splitlines()).replace("|", r"\|")
