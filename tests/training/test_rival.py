"""Behaviour of training.rival."""

from training.rival import Comparison, require_same_classes


def test_more_right_answers_are_better(tmp_path):
    """As many are not."""
    assert Comparison(tmp_path, 0.8, 0.7, 100).is_better
    assert not Comparison(tmp_path, 0.7, 0.7, 100).is_better


def test_a_model_without_a_version_may_have_any_classes(tmp_path):
    """So may one whose newest version is damaged, because no service uses it."""
    require_same_classes(tmp_path / "none", ("a", "b"))
    (tmp_path / "1").mkdir()
    require_same_classes(tmp_path, ("a", "b"))
