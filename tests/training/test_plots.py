"""Behaviour of training.plots."""

import numpy as np
import pytest

import training.plots
from training.data import Split
from training.plots import choose_fonts, plot_confusion, plot_mistakes


def plot(count):
    return plot_confusion(np.eye(count, dtype=np.int64), [f"class {number}" for number in range(count)])


def read_texts(figure):
    (axes,) = figure.axes
    return {text.get_text() for text in [*axes.get_xticklabels(), *axes.get_yticklabels(), *axes.texts]}


@pytest.mark.parametrize("count", [2, 10, 60, 300])
def test_a_confusion_matrix_has_a_maximum_size(count, tmp_path):
    """However many classes it has."""
    figure = plot(count)
    assert 5 <= min(figure.get_size_inches()) == max(figure.get_size_inches()) <= 16
    figure.savefig(tmp_path / "matrix.png", dpi=20)


def test_dollar_signs_in_class_names_are_literal(tmp_path):
    """Matplotlib would read them as a formula."""
    names = ["in $_$", "$x^$"]
    test = Split(np.zeros((1, 32, 32, 3), np.uint8), np.array([0]))
    for figure in (
        plot_confusion(np.eye(2, dtype=np.int64), names),
        plot_mistakes(test, np.array([[0.1, 0.9]]), names),
    ):
        figure.savefig(tmp_path / "figure.png", dpi=20)


def test_a_large_matrix_leaves_out_counts_and_names():
    """First the counts, then the names."""
    assert {"class 0", "1"} <= read_texts(plot(10))
    assert "class 0" in read_texts(plot(60))
    assert not plot(60).axes[0].texts
    assert not any(text.startswith("class") for text in read_texts(plot(300)))


@pytest.fixture
def bundled_fonts(monkeypatch):
    """Hide all fonts except Matplotlib's own."""
    bundled = [font for font in training.plots.fontManager.ttflist if "mpl-data" in font.fname]
    monkeypatch.setattr(training.plots.fontManager, "ttflist", bundled)
    choose_fonts.cache_clear()
    yield
    choose_fonts.cache_clear()


@pytest.mark.usefixtures("bundled_fonts")
def test_a_name_without_a_font_is_shown_as_a_number(tmp_path):
    """Instead of boxes. Matplotlib would warn of the missing letters, and a warning fails this test."""
    figure = plot_confusion(np.eye(3, dtype=np.int64), ["犬", "猫", "Pferd"])
    figure.savefig(tmp_path / "matrix.png", dpi=20)
    assert read_texts(figure) >= {"0", "1", "Pferd"}
    assert "犬" not in read_texts(figure)


@pytest.mark.usefixtures("bundled_fonts")
def test_letters_are_drawn_in_a_font_that_has_them(tmp_path):
    """Matplotlib's own, or another one: the STIX fonts have this letter, DejaVu Sans does not."""
    assert choose_fonts("Ελλάδα жук") == ("DejaVu Sans",)
    name = "cat \N{LATIN SMALL LETTER UE}"
    assert len(choose_fonts(name)) == 2
    figure = plot_confusion(np.eye(2, dtype=np.int64), [name, "b"])
    figure.savefig(tmp_path / "matrix.png", dpi=20)
    assert name in read_texts(figure)
