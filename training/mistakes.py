"""Writes the wrong answers on the test set by file name, for people to look at."""

import csv
from pathlib import Path

import numpy as np

from app.runtime.load import Probabilities
from training.data import Data

COLUMNS = ("file", "said", "probability", "is")


def write_mistakes(path: Path, data: Data, probabilities: Probabilities) -> None:
    """Write the test images with a wrong label as CSV, the most confident mistakes first.

    Args:
        path: the file.
        data: the data set.
        probabilities: (N, classes), the answers for its test set.
    """
    said, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(said != data.test.labels)
    # A file name need not be valid Unicode.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for index in wrong[np.argsort(-confidence[wrong], kind="stable")]:
            names = data.class_names[said[index]], data.class_names[data.test.labels[index]]
            writer.writerow([data.test_files[index], names[0], f"{confidence[index]:.4f}", names[1]])
