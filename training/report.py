"""Writes reports for people: the tables of an evaluation, and the model card with its plots."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.contract import CARD_FOLDER, DataSet, TrainingRun
from app.images.formats import FORMAT_NAMES
from app.runtime.load import Probabilities
from training.calibration import Calibration, Labels
from training.config import Recipe
from training.evaluation import Evaluation
from training.pipeline import steps_per_epoch
from training.plots import choose_fonts, plot_confusion, plot_curves, plot_reliability
from training.table import draw_table

ENCODINGS = {name.lower(): name for name in FORMAT_NAMES} | {"jpg": "JPEG"}
"""Names of image formats by file suffix; other suffixes have none."""
LOSSLESS = frozenset({"lossless", "png", "bmp", "gif"})
LOSSY = (
    " That encoding is lossy, so the images lack detail\nthat the original pixels have. Do not compare accuracy on "
    "them with figures published for the original pixels."
)


@dataclass(frozen=True)
class Card:
    """The content of a model card."""

    title: str
    """Name and version."""
    recipe: Recipe
    training: TrainingRun
    exported_by: str
    """The commit of the code that measured and exported it."""
    data: DataSet
    epochs: list[dict[str, float]]
    """The run's history."""
    evaluation: Evaluation
    calibration: Calibration
    kept_epoch: int | None = None
    """Number of the epoch whose weights were exported, from 1; None: the last."""
    calibrated_on: str = "the validation images"
    remarks: tuple[str, ...] = ()
    """Sentences about the data."""
    notes: str = ""
    """Markdown at the end of the card."""


def write_card(folder: Path, card: Card, probabilities: Probabilities, labels: Labels) -> None:
    """Write the model card into `folder`/card: README.md, curves.png, confusion_matrix.png, reliability.png.

    Args:
        folder: the version's folder.
        card: its content.
        probabilities: (N, classes) for the test set.
        labels: (N,) the test set's true classes.
    """
    written = folder / CARD_FOLDER
    written.mkdir()
    (written / "README.md").write_text(format_card(card), encoding="utf-8")
    figures = {
        "curves": plot_curves(card.epochs),
        "confusion_matrix": plot_confusion(
            np.array(card.evaluation.confusion), list(card.evaluation.per_class_accuracy)
        ),
        "reliability": plot_reliability(probabilities, labels),
    }
    for name, figure in figures.items():
        figure.savefig(written / f"{name}.png", dpi=120)


def format_card(card: Card) -> str:
    """Return the card's text in Markdown."""
    changed = {name: value for name, value in card.recipe.model_dump().items() if value != getattr(Recipe(), name)}
    exported = (
        "" if card.exported_by == card.training.commit else f"; measured and exported by commit {card.exported_by}"
    )
    encodings = card.data.pixel_encoding.split(", ")
    minutes = round(sum_minutes(card.epochs, card.data.train_size, card.recipe))
    template = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    text = template.format(
        title=card.title,
        classes=", ".join(card.evaluation.per_class_accuracy),
        size=card.recipe.size,
        data=card.data,
        encoding=", ".join(dict.fromkeys(ENCODINGS.get(encoding, encoding) for encoding in encodings)),
        training=card.training,
        exported=exported,
        epochs=_describe_epochs(card),
        start=f"It started from the weights of {card.training.start}. " if card.training.start else "",
        minutes="1 minute" if minutes == 1 else f"{minutes} minutes",
        recipe="\n".join(f"- `{name}` = {value!r}" for name, value in changed.items()) or "- none",
        calibration=_describe_calibration(card.calibration, card.calibrated_on),
        table=format_table(card.evaluation),
        elsewhere=format_elsewhere(card.evaluation),
        lossy="" if LOSSLESS.intersection(encodings) else LOSSY,
        remarks="".join(f"\n{remark}\n" for remark in card.remarks),
        notes=card.notes,
    )
    return text.rstrip() + "\n"


def _describe_epochs(card: Card) -> str:
    """Describe the number of epochs, and which one was exported if it is not the last."""
    count = len(card.epochs)
    kept = (
        ""
        if card.kept_epoch in {None, count}
        else f" (exported: epoch {card.kept_epoch}, with the lowest validation loss)"
    )
    return f"{count} epoch{'' if count == 1 else 's'}{kept}"


def _describe_calibration(calibration: Calibration, fitted_on: str) -> str:
    """Describe the calibration in the graph, and the images that it was fitted on."""
    temperature = f"divides the logits by one temperature, {calibration.temperature:.2f}"
    if not calibration.smoothing:
        return f"The graph {temperature}, fitted on {fitted_on}."
    return (
        f"Labels were smoothed for training. The graph removes the share of smoothing that the network learned, "
        f"{calibration.smoothing:.3f}, then {temperature}, both fitted on {fitted_on}."
    )


def sum_minutes(epochs: Sequence[dict[str, float]], train_size: int, recipe: Recipe) -> float:
    """Return the minutes of training steps in a run's history, without validation.

    The last batch of an epoch is filled up, and `images_per_second` counts these images too.
    """
    images = steps_per_epoch(train_size, recipe) * recipe.batch_size
    return sum(images / epoch["images_per_second"] for epoch in epochs) / 60


def format_table(evaluation: Evaluation) -> str:
    """Return the figures as Markdown tables."""
    low, high = evaluation.accuracy_interval
    before = evaluation.calibration_error_before_temperature
    is_smoothed = not math.isclose(before, evaluation.calibration_error_uncalibrated, abs_tol=1e-5)
    undone = [("… without label smoothing", percent(before))] if is_smoothed else []
    rows = [
        ("accuracy", f"{percent(evaluation.accuracy)} (95 % interval {percent(low)} to {percent(high)})"),
        ("right class among the two most probable", percent(evaluation.top2_accuracy)),
        ("negative log-likelihood", f"{evaluation.negative_log_likelihood:.4f}"),
        (
            "expected calibration error, uncalibrated",
            percent(evaluation.calibration_error_uncalibrated),
        ),
        *undone,
        ("… with the temperature, as served", percent(evaluation.calibration_error)),
        ("same label when a PNG is enlarged ×8", percent(evaluation.same_label_enlarged)),
    ]
    runtimes = [
        (
            name,
            percent(figures.accuracy),
            f"{figures.negative_log_likelihood:.4f}",
            percent(figures.calibration_error),
            percent(figures.agreement),
        )
        for name, figures in evaluation.runtimes.items()
    ]
    # Numbered if the plots show a number, because no font has the letters.
    names = [
        name if choose_fonts(name) else f"{number}: {name}" for number, name in enumerate(evaluation.per_class_accuracy)
    ]
    classes = [
        (name, percent(share, digits=1), f"{row[label]} of {sum(row)}")
        for label, (name, share, row) in enumerate(
            zip(names, evaluation.per_class_accuracy.values(), evaluation.confusion, strict=True)
        )
    ]
    changes = [(name, percent(share)) for name, share in evaluation.robustness.items()]
    return "\n".join(
        [
            draw_table(("measure", "test set"), rows),
            draw_table(("class", "accuracy", "right"), classes),
            draw_table(("runtime", "accuracy", "negative log-likelihood", "calibration error", "same label"), runtimes),
            draw_table(("test images changed", "accuracy"), changes),
        ]
    ).rstrip()


def format_elsewhere(evaluation: Evaluation) -> str:
    """Return Markdown tables of typicality and of images from other sources, if they were measured."""
    shares = [
        (name, percent(figures.atypical))
        for name, figures in evaluation.runtimes.items()
        if figures.atypical is not None
    ]
    test_sets = [
        (name, f"{figures.images:,}", percent(figures.accuracy, digits=1), percent(figures.class_mean, digits=1))
        for name, figures in evaluation.test_sets.items()
    ]
    foreign = [
        (
            name,
            f"{figures.images:,}",
            _show(figures.typicality_auroc),
            "–" if figures.typicality_caught is None else percent(figures.typicality_caught, digits=1),
            _show(figures.probability_auroc),
            percent(figures.probability_caught, digits=1),
        )
        for name, figures in evaluation.foreign.items()
    ]
    tables: dict[tuple[str, ...], Sequence[Sequence[str]]] = {
        ("runtime", "test images with a typicality below 0.05 (5 % is ideal)"): shares,
        ("images from other sources", "images", "accuracy", "mean of the classes"): test_sets,
        (
            "foreign images",
            "images",
            "AUROC by typicality",
            "caught, 95 % of test images kept",
            "AUROC by the largest probability",
            "caught by it",
        ): foreign,
    }
    return "\n".join(draw_table(header, rows) for header, rows in tables.items() if rows).rstrip()


def _show(auroc: float | None) -> str:
    return "–" if auroc is None else f"{auroc:.3f}"


def percent(share: float, digits: int = 2) -> str:
    """Return a fraction as a percentage, such as 90.67 %."""
    return f"{100 * share:.{digits}f} %"
