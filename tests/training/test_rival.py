from training.rival import Rivalry, require_same_classes


def test_more_right_answers_are_better(tmp_path):
    """As many are not: what serves goes on."""
    assert Rivalry(tmp_path, 0.8, 0.7, 100).is_better
    assert not Rivalry(tmp_path, 0.7, 0.7, 100).is_better


def test_a_model_without_a_version_may_have_any_classes(tmp_path):
    """And one whose newest version can't be read: nobody serves it."""
    require_same_classes(tmp_path / "none", ("a", "b"))
    (tmp_path / "1").mkdir()
    require_same_classes(tmp_path, ("a", "b"))
