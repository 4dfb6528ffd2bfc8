"""A rolling restart behind nginx, under load from wrk, loses no request."""

import shutil

import pytest

from benchmarks.rolling_restart import NEEDED, restart_in_turn

MISSING = [name for name in NEEDED if not shutil.which(name)]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.timeout(300),
]


def test_no_request_fails_while_every_process_is_restarted():
    """Each drains, exits with status 0 and starts again. The proxy does not retry."""
    outcome = restart_in_turn(restarts=3, connections=8, drain_seconds=2)
    assert outcome.restarts == 3
    assert outcome.requests > 250
    assert set(outcome.failed.values()) == {0}, outcome


def test_a_killed_process_causes_failures():
    """So the measurement would show lost requests."""
    outcome = restart_in_turn(restarts=1, connections=8, drain_seconds=2, graceful=False)
    assert sum(outcome.failed.values()) > 0, outcome
