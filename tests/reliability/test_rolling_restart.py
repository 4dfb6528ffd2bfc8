"""A rolling restart behind nginx, under load from wrk: nobody notices."""

import shutil

import pytest

from benchmarks.rolling_restart import NEEDED, restart_in_turn

MISSING = [name for name in NEEDED if not shutil.which(name)]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.timeout(300),
]


def test_no_request_fails_while_every_process_is_restarted():
    """Each drains, exits with status 0 and comes back; the proxy hides nothing."""
    outcome = restart_in_turn(restarts=3, connections=8, drain_seconds=2)
    assert outcome.restarts == 3
    assert outcome.requests > 250
    assert set(outcome.failed.values()) == {0}, outcome


def test_a_killed_process_is_seen():
    """The same without a drain loses requests, and the measurement tells."""
    outcome = restart_in_turn(restarts=1, connections=8, drain_seconds=2, graceful=False)
    assert sum(outcome.failed.values()) > 0, outcome
