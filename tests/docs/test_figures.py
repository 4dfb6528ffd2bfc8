"""The figures that README.md copies are those of the files that it copies them from."""

import re
from pathlib import Path

import pytest

from app.contract import METADATA_FILE, ModelMetadata

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def find_table(text: str, start: str) -> list[str]:
    """Find the lines of the one table whose first line starts so."""
    [table] = re.findall(rf"^{re.escape(start)}.*\n(?:\|.*\n)+", text, re.MULTILINE)
    return table.splitlines()


@pytest.mark.parametrize(
    ("start", "file"), [("| requests/s |", "serving.md"), ("| images/s (a batch's time) |", "runtime.md")]
)
def test_a_copied_table_is_the_one_that_was_measured(start, file):
    """Row by row, its header too."""
    results = (ROOT / "benchmarks" / "results" / file).read_text(encoding="utf-8")
    copied, measured = find_table(README, start), find_table(results, start)
    assert len(copied) > 5
    assert [row for row in copied if row not in measured] == []


def test_the_shipped_models_figures_are_those_of_its_metadata():
    """For each precision: accuracy, in float32 with its interval, and calibration error."""
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in find_table(README, "| version | recipe |")[2:]]
    folder = ROOT / re.search(r"\]\((.+)/card/README\.md\)", rows[0][0])[1]
    metrics = ModelMetadata.model_validate_json((folder / METADATA_FILE).read_bytes()).metrics
    expected = []
    for precision in ("f32", "bf16", "int8"):
        figures = metrics.runtimes[f"openvino {precision}"]
        expected.append([precision, f"{100 * figures.accuracy:.2f} %", f"{100 * figures.calibration_error:.2f} %"])
    low, high = metrics.accuracy_interval
    expected[0][1] += f" ({100 * low:.2f} to {100 * high:.2f})"
    assert [row[3:] for row in rows] == expected
