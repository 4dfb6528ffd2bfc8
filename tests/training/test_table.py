"""Behaviour of training.table."""

from training.table import draw_table


def test_a_table_has_a_line_for_its_header_and_each_row():
    """In Markdown."""
    assert draw_table(("a", "b"), [("x", "y")]) == "| a | b |\n| --- | --- |\n| x | y |\n"


def test_numbers_are_right_aligned():
    """All columns except the first."""
    assert draw_table(["a", "b"], [["x", "1"]], numbers=True) == "| a | b |\n| --- | ---: |\n| x | 1 |\n"


def test_cells_are_escaped():
    """Class names can contain any text."""
    assert draw_table(["a"], [["x|y\nz"]]) == "| a |\n| --- |\n| x\\|y z |\n"
