"""Measures an exported version on the test set, from its files, with the runtimes that serve it."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import keras
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score
from tqdm import tqdm

from app.contract import INT8_FILE, Precision, RuntimeName
from app.errors import RefusedVersionError
from app.runtime.load import Answers, Images, Probabilities, load_runtime
from app.runtime.openvino import make_core
from training.calibration import Calibration, Labels, measure_calibration_error
from training.data import Split
from training.elsewhere import ForeignSet, NamedFolder, TestSet, measure_foreign, measure_test_set
from training.graph import find_logits
from training.robustness import ENLARGED_8, VARIANTS, name_variant

REFERENCE = "tensorflow f32"
RUNTIMES: dict[str, tuple[RuntimeName, Precision]] = {
    "tensorflow f32": ("tensorflow", "auto"),
    "openvino f32": ("openvino", "f32"),
    "openvino bf16": ("openvino", "bf16"),
    "openvino int8": ("openvino", "int8"),
}
ROBUSTNESS_RUNTIME = "openvino f32"  # as accurate as the reference, and faster
BATCH_SIZE = 100

ATYPICAL = 0.05


class Predict(Protocol):
    """Runs a model."""

    def __call__(self, images: Images, title: str) -> Answers:
        """Return the answers for any number of images; `title` is the title of the progress bar."""


class RuntimeFigures(BaseModel, frozen=True):
    """One runtime's figures on the whole test set; shares are fractions."""

    accuracy: float
    negative_log_likelihood: float
    calibration_error: float
    agreement: float
    """Share of the images with the same label as in the reference runtime."""
    atypical: float | None = None
    """Share of the images with a typicality below 0.05; ideally 0.05."""


class Evaluation(BaseModel, frozen=True):
    """The results on the test set, `metrics` in the metadata. Shares are fractions."""

    accuracy: float
    accuracy_interval: tuple[float, float]
    """95 % interval (Wilson)."""
    top2_accuracy: float
    negative_log_likelihood: float
    calibration_error: float
    calibration_error_before_temperature: float
    """After label smoothing was removed, before the temperature."""
    calibration_error_uncalibrated: float
    """Of the network itself, before both steps of calibration."""
    per_class_accuracy: dict[str, float]
    confusion: list[list[int]]
    """Counts; rows are the true classes, columns the predicted ones."""
    runtimes: dict[str, RuntimeFigures]
    robustness: dict[str, float]
    """Accuracy on changed test images, by the change."""
    same_label_enlarged: float
    """Share of the images whose label stays the same when the image is enlarged eightfold."""
    test_sets: dict[str, TestSet] = {}
    foreign: dict[str, ForeignSet] = {}


def evaluate(
    folder: Path,
    test: Split,
    class_names: Sequence[str],
    smoothing: float,
    *,
    test_sets: Sequence[NamedFolder] = (),
    foreign: Sequence[NamedFolder] = (),
) -> tuple[Evaluation, Probabilities]:
    """Measure the version in `folder` on the whole test set.

    Args:
        folder: of the version.
        test: the test set.
        class_names: in the order of the labels.
        smoothing: the share of label smoothing that the calibration removes.
        test_sets: more images of the classes, <class>/*.
        foreign: images that show none of the classes.

    Returns:
        The figures, and the reference runtime's probabilities (N, classes).

    Raises:
        RefusedVersionError: no runtime can load it.
        DataError: images in `test_sets` or `foreign` can't be read.
    """
    labels = test.labels
    answers = _answer_by_runtime(folder, test)
    reference = answers[REFERENCE].probabilities
    logits = load_network(folder)(test.images, "logits")
    undone = keras.ops.convert_to_numpy(Calibration(smoothing, temperature=1)(logits))
    predict = _load_classifier(folder, ROBUSTNESS_RUNTIME)
    changed = {
        name: predict(change(test.images), name).probabilities.argmax(axis=1) for name, change in VARIANTS.items()
    }
    size = (test.images.shape[1], test.images.shape[2])
    known = answers[ROBUSTNESS_RUNTIME]
    confusion = confusion_matrix(labels, reference.argmax(axis=1), labels=range(len(class_names)))
    correct = int(confusion.trace())
    interval = binomtest(correct, len(labels)).proportion_ci(method="wilson")
    evaluation = Evaluation(
        accuracy=correct / len(labels),
        accuracy_interval=(float(interval.low), float(interval.high)),
        top2_accuracy=_top2(reference, labels),
        negative_log_likelihood=_log_loss(reference, labels),
        calibration_error=measure_calibration_error(reference, labels),
        calibration_error_before_temperature=measure_calibration_error(undone, labels),
        calibration_error_uncalibrated=measure_calibration_error(softmax(logits, axis=1), labels),
        per_class_accuracy=dict(zip(class_names, (confusion.diagonal() / confusion.sum(axis=1)).tolist(), strict=True)),
        confusion=confusion.tolist(),
        runtimes={name: _measure_runtime(answer, reference, labels) for name, answer in answers.items()},
        robustness={
            name_variant(name, test.images.shape[1]): float((answer == labels).mean())
            for name, answer in changed.items()
        },
        same_label_enlarged=float((changed[ENLARGED_8] == known.probabilities.argmax(axis=1)).mean()),
        test_sets={
            name: measure_test_set(path, class_names, size, partial(predict, title=name)) for name, path in test_sets
        },
        foreign={name: measure_foreign(path, size, known, partial(predict, title=name)) for name, path in foreign},
    )
    return evaluation, reference


def _answer_by_runtime(folder: Path, test: Split) -> dict[str, Answers]:
    answers = {}
    for name, (_, precision) in RUNTIMES.items():
        if precision == "int8" and not (folder / INT8_FILE).exists():
            continue
        try:
            answers[name] = _load_classifier(folder, name)(test.images, name)
        except RefusedVersionError:
            if precision != "bf16":  # a CPU without bfloat16 can still measure the rest
                raise
    return answers


def load_network(folder: Path) -> Callable[[Images, str], npt.NDArray[np.float32]]:
    """Load the network of the SavedModel in `folder`, which returns logits (N, classes)."""
    import openvino  # noqa: PLC0415 - after app.runtime.openvino, which turns off telemetry

    core = make_core()
    graph = core.read_model(folder)
    network = openvino.Model(find_logits(graph).outputs(), graph.get_parameters())
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    predict = _in_batches(lambda images: Answers(compiled(images)[0].copy()))
    return lambda images, title: predict(images, title).probabilities


def _load_classifier(folder: Path, name: str) -> Predict:
    runtime, precision = RUNTIMES[name]
    return _in_batches(load_runtime(folder, name=runtime, precision=precision, threads=0).predict)


def _in_batches(predict: Callable[[Images], Answers]) -> Predict:
    def predict_all(images: Images, title: str) -> Answers:
        answers: list[Answers] = []
        with tqdm(desc=title, total=len(images), unit=" images", leave=False, disable=None) as bar:
            for start in range(0, len(images), BATCH_SIZE):
                answers.append(predict(images[start : start + BATCH_SIZE]))
                bar.update(len(answers[-1].probabilities))
        shares = [answer.typicality for answer in answers if answer.typicality is not None]
        return Answers(
            np.concatenate([answer.probabilities for answer in answers]), np.concatenate(shares) if shares else None
        )

    return predict_all


def _measure_runtime(answer: Answers, reference: Probabilities, labels: Labels) -> RuntimeFigures:
    probabilities, typicality = answer
    return RuntimeFigures(
        accuracy=float((probabilities.argmax(axis=1) == labels).mean()),
        negative_log_likelihood=_log_loss(probabilities, labels),
        calibration_error=measure_calibration_error(probabilities, labels),
        agreement=float((probabilities.argmax(axis=1) == reference.argmax(axis=1)).mean()),
        atypical=None if typicality is None else float((typicality < ATYPICAL).mean()),
    )


def _log_loss(probabilities: Probabilities, labels: Labels) -> float:
    exact = probabilities.astype(np.float64)  # scikit-learn warns if rows do not sum to 1
    return float(log_loss(labels, exact / exact.sum(axis=1, keepdims=True), labels=range(exact.shape[1])))


def _top2(probabilities: Probabilities, labels: Labels) -> float:
    if probabilities.shape[1] == 2:  # noqa: PLR2004 - of two classes the right one is always among two
        return 1.0
    return float(top_k_accuracy_score(labels, probabilities, k=2, labels=range(probabilities.shape[1])))
