"""The figures in README.md and docs/ equal those in the files that they come from."""

import re
from pathlib import Path

import pytest

from app.contract import METADATA_FILE, ModelMetadata

ROOT = Path(__file__).parents[2]


def find_table(file: str, start: str) -> list[list[str]]:
    """Find the table whose first line starts with `start`; return the cells of its rows, the header first."""
    text = (ROOT / file).read_text(encoding="utf-8")
    [table] = re.findall(rf"^{re.escape(start)}.*\n(?:\|.*\n)+", text, re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()]


@pytest.mark.parametrize(
    ("file", "start", "results"),
    [
        ("README.md", "| requests/s |", "serving.md"),
        ("docs/performance.md", "| requests/s |", "serving.md"),
        ("docs/performance.md", "| images/s (time per batch) |", "runtime.md"),
    ],
)
def test_a_copied_table_has_the_measured_figures(file, start, results):
    """It may have fewer columns and rows than the command wrote."""
    copied, measured = find_table(file, start), find_table(f"benchmarks/results/{results}", start)
    columns = [measured[0].index(name) for name in copied[0]]
    assert len(copied) > 5
    assert [row for row in copied if row not in [[cells[column] for column in columns] for cells in measured]] == []


def test_the_shipped_models_figures_equal_its_metadata():
    """For each precision: accuracy, in float32 with its interval, and calibration error."""
    rows = find_table("README.md", "| version | recipe |")[2:]
    folder = ROOT / re.search(r"\]\((.+)/card/README\.md\)", rows[0][0])[1]
    metrics = ModelMetadata.model_validate_json((folder / METADATA_FILE).read_bytes()).metrics
    expected = []
    for precision in ("f32", "bf16", "int8"):
        figures = metrics.runtimes[f"openvino {precision}"]
        expected.append([precision, f"{100 * figures.accuracy:.2f} %", f"{100 * figures.calibration_error:.2f} %"])
    low, high = metrics.accuracy_interval
    expected[0][1] += f" ({100 * low:.2f} to {100 * high:.2f})"
    assert [row[3:] for row in rows] == expected
