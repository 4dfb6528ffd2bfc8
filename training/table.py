"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def draw_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> str:
    """Return a table as whole lines; if it holds `numbers`, all columns but the first are aligned to the right.

    A cell may be any text, such as a class's name: what would end it or its line is escaped.
    """
    rest = "---:" if numbers else "---"
    lines = [header, ["---", *(rest for _ in header[1:])], *rows]
    return "".join(f"| {' | '.join(map(_escape, line))} |\n" for line in lines)


def _escape(cell: str) -> str:
    return " ".join(cell.splitlines()).replace("|", r"\|")
