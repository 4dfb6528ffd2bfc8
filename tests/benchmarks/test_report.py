"""Medians, ratios and tables."""

import subprocess
import sys

import pytest

from benchmarks.pictures import ROOT
from benchmarks.report import Record, Sample, make_rows, render_comparison
from benchmarks.services import Service
from benchmarks.wrk import Seen

ONE, MANY = "one client", "many clients"


def sample(per_second: float, cpu_seconds: float = 0.0, *, errors: int = 0) -> Sample:
    """A sample of two seconds with percentiles derived from its rate."""
    seen = Seen(round(2 * per_second), 2.0, per_second + 0.5, per_second + 0.95, per_second + 0.99, errors)
    return Sample(seen, cpu_seconds)


def record(name: str, precision: str, *, ours: bool = False, **rates: list[float]) -> Record:
    service = Service(name, name.title(), precision, ("x",), ours=ours)
    samples = {title.replace("_", " "): [sample(rate) for rate in values] for title, values in rates.items()}
    return Record(service, 2.0, 200.0, samples)


@pytest.fixture
def rows():
    return make_rows(
        [
            record("mine", "bf16", ours=True, one_client=[100, 200, 120], many_clients=[600]),
            record("mine-int8", "int8", ours=True, one_client=[300]),
            record("theirs", "bf16", one_client=[40, 40, 60]),
            record("theirs-int8", "int8", one_client=[100]),
            record("graph", "f32", one_client=[10], many_clients=[0]),
        ]
    )


def test_a_figure_is_the_median_of_the_rounds(rows):
    """So a disturbed round does not matter."""
    cell = rows[0].cells[ONE]
    assert (cell.per_second, cell.lowest_per_second, cell.highest_per_second) == (120, 100, 200)
    assert (cell.p50_ms, cell.p95_ms, cell.p99_ms) == (120.5, 120.95, 120.99)


def test_errors_of_all_rounds_count():
    """They are added up."""
    mine = record("mine", "f32", ours=True)
    mine.samples[ONE] = [sample(5, errors=1), sample(5, errors=2)]
    assert make_rows([mine])[0].cells[ONE].errors == 3


def test_cpu_time_is_per_request():
    """In milliseconds."""
    mine = record("mine", "f32", ours=True)
    mine.samples[ONE] = [sample(100, cpu_seconds=0.8), sample(200, cpu_seconds=0.8), sample(50, cpu_seconds=0.8)]
    assert make_rows([mine])[0].cells[ONE].cpu_ms == 4


def test_int8_is_compared_with_int8_and_other_precisions_with_the_other_one(rows):
    """Per round: 100 ÷ 40, 200 ÷ 40 and 120 ÷ 60 have the median 2.5. The medians' ratio would be 3."""
    ratios = {row.name: row.cells[ONE].ratio for row in rows}
    assert ratios == {"mine": 1, "mine-int8": 1, "theirs": 2.5, "theirs-int8": 3, "graph": 10}


def test_without_this_service_nothing_is_compared():
    """The column has a dash."""
    assert make_rows([record("theirs", "f32", one_client=[1])])[0].cells[ONE].ratio is None


def test_a_service_without_answers_has_a_rate_and_no_latencies(rows):
    """The rate is 0."""
    cell = rows[-1].cells[MANY]
    assert cell.per_second == 0
    assert (cell.p50_ms, cell.cpu_ms, cell.ratio) == (None, None, None)


def test_the_overview_has_a_row_for_each_service_and_a_column_for_each_load(rows):
    """With memory and start."""
    overview = render_comparison(rows).split("\n\n")[0].splitlines()
    assert overview[0] == "| requests/s | precision | one client | many clients | memory | start |"
    assert overview[2] == "| Mine | bf16 | 120 | 600 | 200 MiB | 2.0 s |"
    assert overview[4] == "| Theirs | bf16 | 40 | – | 200 MiB | 2.0 s |"


def test_each_load_has_a_table_of_the_services_that_support_it(rows):
    """Not all services accept raw bodies."""
    table = render_comparison(rows).split("### many clients\n\n")[1].splitlines()
    assert table[2] == "| Mine | bf16 | 600 | 600–600 | 1.00 | 600.5 ms | 601.0 ms | 601.0 ms | 0 | 0.00 ms |"
    assert table[3] == "| Graph | f32 | 0 | 0–0 | – | – | – | – | 0 | – |"
    assert len(table) == 4


def test_comparing_services_imports_no_training_library():
    """`make bench` installs no plotting library, and TensorFlow would take memory from the services."""
    code = "import sys, benchmarks.serving; print({'tensorflow', 'matplotlib', 'sklearn'} & sys.modules.keys())"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert output.strip() == "set()"


def test_services_left_out_are_listed_with_the_reason():
    """Below the tables."""
    absent = Record(Service("absent", "Absent", "f32", ("x",)), left_out="No module named 'absent'")
    text = render_comparison(make_rows([record("mine", "f32", ours=True, one_client=[1]), absent]))
    assert text.endswith("Left out:\n\n- absent: No module named 'absent'\n")
    assert "| Absent |" not in text
