"""Behaviour of app.bulk.job without Ray; tests/reliability/test_bulk.py has the rest."""

import pytest

from app.bulk.job import _summarize, share_cores


@pytest.mark.parametrize(("cores", "share"), [(1, 1), (2, 2), (4, 4), (5, 2), (6, 3), (7, 3), (8, 4), (10, 3), (16, 4)])
def test_workers_have_up_to_four_cores(cores, share):
    """So that at most one core in five is left over."""
    assert share_cores(cores) == share


def test_a_remote_error_is_its_last_line():
    """Ray's text has the traceback of the other process before it."""
    assert _summarize(RuntimeError("ray::worker()\n  File x\n\nOSError: No space left\n")) == "OSError: No space left"
    assert _summarize(RuntimeError()) == "RuntimeError"
