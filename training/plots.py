"""Draws the plots of the model card, and the most confident mistakes of a run."""

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.ticker import MaxNLocator

from app.runtime.load import Probabilities
from training.calibration import Labels, bin_confidence
from training.data import Split

MAX_INCHES = 16.0  # of a confusion matrix, whose area would grow with the square of the number of classes
# With more classes, a matrix has no room for a number in each cell, or for a name at each row.
SHOWN_COUNTS, SHOWN_NAMES = 20, 60
DEFAULT_FONT = "DejaVu Sans"
"""Included in Matplotlib."""
MISTAKES = (4, 6)
"""Rows and columns of the picture of mistakes."""


@functools.cache
def choose_fonts(name: str) -> tuple[str, ...]:
    """Return font families that together have all letters of a class name; none if the installed fonts lack some.

    Matplotlib's own font has Latin, Greek and Cyrillic letters among others, but no Chinese or Japanese ones.
    """
    missing = {ord(letter) for letter in name if not letter.isspace()}
    families = [DEFAULT_FONT]
    for font in sorted(fontManager.ttflist, key=lambda font: font.name != DEFAULT_FONT):
        if missing and "last resort" not in font.name.lower():  # which draws a box for any letter
            found = missing & get_font(font.fname).get_charmap().keys()
            missing -= found
            families += [font.name] * bool(found)
    return () if missing else tuple(dict.fromkeys(families))


def _label_classes(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the labels of the classes and their font families. A class without a font for its name gets a number.

    Draw them with `parse_math=False`, because names can contain dollar signs, which would start a formula.
    """
    fonts = [choose_fonts(name) for name in names]
    labels = [name if found else str(number) for number, (name, found) in enumerate(zip(names, fonts, strict=True))]
    return labels, list(dict.fromkeys([DEFAULT_FONT, *(family for found in fonts for family in found)]))


def plot_curves(epochs: Sequence[dict[str, float]]) -> Figure:
    """Plot loss, accuracy and learning rate by epoch; `epochs` is a run's history, one record an epoch."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    numbers = [epoch["epoch"] + 1 for epoch in epochs]
    panels = {
        "loss": ("loss", "val_loss"),
        "accuracy": ("accuracy", "val_accuracy"),
        "learning rate": ("learning_rate",),
    }
    for axes, (title, names) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for name in names:
            label = "validation" if name.startswith("val_") else "training"
            axes.plot(numbers, [epoch[name] for epoch in epochs], marker=".", label=label)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend()
    return figure


def plot_confusion(counts: npt.NDArray[np.int64], class_names: Sequence[str]) -> Figure:
    """Plot a confusion matrix; colour shows the share of a true class, numbers are counts.

    Args:
        counts: (classes, classes) images by true class (rows) and predicted class (columns).
        class_names: one for each class. The axes show numbers instead if there are many classes, or if no
            installed font has the letters of a name.
    """
    size = min(MAX_INCHES, max(5.0, 0.6 * len(class_names) + 2))
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(class_names) <= SHOWN_NAMES:
        ticks = range(len(class_names))
        labels, fonts = _label_classes(class_names)
        axes.set_xticks(ticks, labels, rotation=45, ha="right", parse_math=False, fontfamily=fonts)
        axes.set_yticks(ticks, labels, parse_math=False, fontfamily=fonts)
    axes.set(xlabel="predicted", ylabel="true", title="Test images by true and predicted class")
    if len(class_names) <= SHOWN_COUNTS:
        for (row, column), count in np.ndenumerate(counts):
            shade = "white" if shares[row, column] > 0.5 else "black"  # noqa: PLR2004 - on the dark half
            axes.text(column, row, str(count), ha="center", va="center", color=shade, fontsize=9)
    return figure


def plot_reliability(probabilities: Probabilities, labels: Labels) -> Figure:
    """Plot accuracy against confidence, and the number of images by confidence.

    Args:
        probabilities: (N, classes).
        labels: (N,) true classes.
    """
    figure = Figure(figsize=(5, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    confidence, accuracy, counts = bin_confidence(probabilities, labels)
    filled = counts > 0
    upper.plot([0, 1], [0, 1], color="grey", linestyle="--", label="perfect")
    upper.plot(confidence[filled], accuracy[filled], marker="o", label="test set")
    upper.set(ylabel="accuracy", title="Accuracy by probability", xlim=(0, 1), ylim=(0, 1))
    upper.legend()
    lower.bar(confidence[filled], counts[filled], width=1 / len(counts) * 0.8)
    lower.set(xlabel="probability of the predicted class", ylabel="images", yscale="log")
    return figure


def plot_mistakes(test: Split, probabilities: Probabilities, class_names: Sequence[str]) -> Figure:
    """Draw the most confident wrong answers. The figure contains images of the data set: keep it out of the artifact.

    Args:
        test: N images and their true classes.
        probabilities: (N, classes) for them.
        class_names: one for each class.
    """
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != test.labels)
    surest = wrong[np.argsort(-confidence[wrong])]
    figure = Figure(figsize=(12, 9), layout="constrained")
    figure.suptitle("Most confident mistakes")
    labels, fonts = _label_classes(class_names)
    panels: list[Axes] = figure.subplots(*MISTAKES).ravel().tolist()
    for axes in panels:
        axes.axis("off")
    for axes, index in zip(panels, surest, strict=False):
        axes.imshow(test.images[index])
        said, true = labels[predicted[index]], labels[test.labels[index]]
        axes.set_title(f"{said} {confidence[index]:.0%}\nis {true}", fontsize=9, parse_math=False, fontfamily=fonts)
    return figure
