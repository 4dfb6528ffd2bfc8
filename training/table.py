"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def draw_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> str:
    """Return a table as whole lines; if it holds `numbers`, all columns but the first are aligned to the right."""
    rest = "---:" if numbers else "---"
    lines = [header, ["---", *(rest for _ in header[1:])], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
