"""What a person looks at: the model card and its plots, and the run's most confident mistakes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from app.contract import CARD_FOLDER, DataSet
from training.calibration import bin_confidence
from training.config import Recipe
from training.data import Split
from training.evaluate import Evaluation, format_table
from training.run import read_history

Probabilities = npt.NDArray[np.float32]

SHOWN_COUNTS = 20  # a matrix of more classes has no room for a number in each cell
MISTAKES = (4, 6)
"""Rows and columns of the picture of mistakes."""


def write_card(
    folder: Path,
    title: str,
    recipe: Recipe,
    data: DataSet,
    evaluation: Evaluation,
    probabilities: Probabilities,
    labels: npt.NDArray[np.int64],
    run: Path,
    *,
    command: str,
    notes: str = "",
) -> None:
    """Write the model card into `folder`/card: README.md, curves.png, confusion_matrix.png, reliability.png.

    Args:
        folder: the version's folder.
        title: name and version.
        recipe: how the network was fitted.
        data: what it was fitted and tested on.
        evaluation: the figures on the test set.
        probabilities: (N, classes) for the test set.
        labels: (N,) the test set's true classes.
        run: the run's folder.
        command: what was typed to train it.
        notes: Markdown that ends the card, such as what else was tried.
    """
    card = folder / CARD_FOLDER
    card.mkdir()
    class_names = list(evaluation.per_class_accuracy)
    epochs = read_history(run)
    plot_curves(epochs).savefig(card / "curves.png", dpi=120)
    plot_confusion(np.array(evaluation.confusion), class_names).savefig(card / "confusion_matrix.png", dpi=120)
    plot_reliability(probabilities, labels).savefig(card / "reliability.png", dpi=120)
    template = Path(__file__).with_name("card.md").read_text()
    changed = {name: value for name, value in recipe.model_dump().items() if value != getattr(Recipe(), name)}
    minutes = sum(data.train_size / epoch["images_per_second"] for epoch in epochs) / 60
    (card / "README.md").write_text(
        template.format(
            title=title,
            classes=", ".join(class_names),
            data=data,
            command=command,
            epochs=len(epochs),
            minutes=minutes,
            recipe="\n".join(f"- `{name}` = {value!r}" for name, value in changed.items()) or "- none",
            table=format_table(evaluation),
            notes=notes,
        ).rstrip()
        + "\n"
    )


def plot_curves(epochs: Sequence[dict[str, float]]) -> Figure:
    """Plot loss, accuracy and learning rate by epoch."""
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
    """Plot a confusion matrix; colour shows the share of a true class, numbers are counts."""
    size = max(5.0, 0.6 * len(class_names) + 2)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(class_names))
    axes.set_xticks(ticks, class_names, rotation=45, ha="right")
    axes.set_yticks(ticks, class_names)
    axes.set(xlabel="predicted", ylabel="true", title="Test images by true and predicted class")
    if len(class_names) <= SHOWN_COUNTS:
        for (row, column), count in np.ndenumerate(counts):
            shade = "white" if shares[row, column] > 0.5 else "black"  # noqa: PLR2004
            axes.text(column, row, str(count), ha="center", va="center", color=shade, fontsize=9)
    return figure


def plot_reliability(probabilities: Probabilities, labels: npt.NDArray[np.int64]) -> Figure:
    """Plot accuracy against confidence, and how many images have which confidence."""
    figure = Figure(figsize=(5, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    confidence, accuracy, counts = bin_confidence(probabilities, labels)
    filled = counts > 0
    upper.plot([0, 1], [0, 1], color="grey", linestyle="--", label="perfect")
    upper.plot(confidence[filled], accuracy[filled], marker="o", label="test set")
    upper.set(ylabel="accuracy", title="Are the probabilities honest?", xlim=(0, 1), ylim=(0, 1))
    upper.legend()
    lower.bar(confidence[filled], counts[filled], width=1 / len(counts) * 0.8)
    lower.set(xlabel="probability of the predicted class", ylabel="images", yscale="log")
    return figure


def plot_mistakes(test: Split, probabilities: Probabilities, class_names: Sequence[str]) -> Figure:
    """Draw the wrong answers the model was surest of. It shows the data's pixels: not for the artifact."""
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != test.labels)
    surest = wrong[np.argsort(-confidence[wrong])]
    figure = Figure(figsize=(12, 9), layout="constrained")
    figure.suptitle("Most confident mistakes")
    panels: list[Axes] = figure.subplots(*MISTAKES).ravel().tolist()
    for axes in panels:
        axes.axis("off")
    for axes, index in zip(panels, surest, strict=False):
        axes.imshow(test.images[index])
        said, true = class_names[predicted[index]], class_names[test.labels[index]]
        axes.set_title(f"{said} {confidence[index]:.0%}\nis {true}", fontsize=9)
    return figure
