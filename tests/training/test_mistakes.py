"""Behaviour of training.mistakes."""

import csv

import numpy as np

from tests.training.images import CLASSES, draw_split
from training.data import Data
from training.mistakes import write_mistakes


def test_mistakes_are_listed_by_file(tmp_path):
    """The most confident first, each with the predicted and the true class. Names that are not UTF-8 are escaped."""
    test = draw_split(1, seed=0)
    data = Data("x", "y", "png", CLASSES, test, test, test_files=("a.png", "b,\n.png", "\udce9.png"))
    path = tmp_path / "mistakes.csv"
    write_mistakes(path, data, np.array([[0.9, 0.1, 0], [0.7, 0.3, 0], [0, 0.8, 0.2]]))
    with path.open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["file", "said", "probability", "is"],
            ["\\udce9.png", "square", "0.8000", "stripes"],
            ["b,\n.png", "disc", "0.7000", "square"],
        ]
