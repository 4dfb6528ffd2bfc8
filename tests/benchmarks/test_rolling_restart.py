"""The results of the rolling restart. `make reliability` tests the restarts."""

import pytest

from benchmarks import rolling_restart
from benchmarks.rolling_restart import Outcome


@pytest.mark.parametrize(("failed", "status"), [({"read": 0}, 0), ({"read": 1, "status": 2}, 1)])
def test_the_table_goes_to_the_chosen_folder(monkeypatch, tmp_path, capsys, failed, status):
    """A single failed request means exit status 1."""
    outcome = Outcome(6, 9336, 55.2, 90.1, 199.4, 384.0, failed)
    monkeypatch.setattr(rolling_restart, "restart_in_turn", lambda **_: outcome)
    monkeypatch.setattr(rolling_restart, "NEEDED", ())
    assert rolling_restart.main(["--results", str(tmp_path / "x")]) == status
    text = (tmp_path / "x" / "rolling_restart.md").read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    header = "| restarts | requests | failed | p50 | p99 | slowest |\n| --- | --- | --- | --- | --- | --- |\n"
    assert f"\n\n{header}| 6 | 9,336 | {sum(failed.values())} | 90 ms | 199 ms | 384 ms |\n\nMachine: " in text
