from training.table import draw_table


def test_a_table_has_a_line_for_its_header_and_each_row():
    assert draw_table(("a", "b"), [("x", "y")]) == "| a | b |\n| --- | --- |\n| x | y |\n"


def test_numbers_stand_to_the_right():
    assert draw_table(["a", "b"], [["x", "1"]], numbers=True) == "| a | b |\n| --- | ---: |\n| x | 1 |\n"


def test_a_cell_holds_any_text():
    """Class names come from folders."""
    assert draw_table(["a"], [["x|y\nz"]]) == "| a |\n| --- |\n| x\\|y z |\n"
