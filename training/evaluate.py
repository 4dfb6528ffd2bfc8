"""What an exported version is worth on the test set, measured through its files by the runtimes that serve it.

`python -m training.evaluate models/minimodel/1` measures a version again and compares with its metadata.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score
from tqdm import tqdm

from app.contract import INT8_FILE, METADATA_FILE, ModelMetadata
from app.errors import RefusedVersionError
from app.runtime import load_runtime
from app.settings import Precision, RuntimeName
from training.calibration import change_temperature, measure_calibration_error
from training.data import Split, load_data
from training.errors import DataError
from training.robustness import ENLARGED_8, VARIANTS

REFERENCE = "tensorflow f32"
RUNTIMES: dict[str, tuple[RuntimeName, Precision]] = {
    "tensorflow f32": ("tensorflow", "auto"),
    "openvino f32": ("openvino", "f32"),
    "openvino bf16": ("openvino", "bf16"),
    "openvino int8": ("openvino", "int8"),
}
ROBUSTNESS_RUNTIME = "openvino f32"  # as good as the reference, sooner
BATCH_SIZE = 100
TOLERANCE = 0.002  # 20 of 10,000 images: other processors round otherwise, and a few images lie on a border

Probabilities = npt.NDArray[np.float32]
Classifier = Callable[[npt.NDArray[np.uint8], str], Probabilities]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class RuntimeMetrics(_Record):
    """One runtime's figures on the whole test set; shares are fractions."""

    accuracy: float
    negative_log_likelihood: float
    calibration_error: float
    agreement: float
    """Share of the images that get the reference runtime's label."""


class Evaluation(_Record):
    """All that is measured on the test set; it goes into the metadata as `metrics`. Shares are fractions."""

    accuracy: float
    accuracy_interval: tuple[float, float]
    """95 %, Wilson's."""
    top2_accuracy: float
    negative_log_likelihood: float
    calibration_error: float
    calibration_error_before_temperature: float
    per_class_accuracy: dict[str, float]
    confusion: list[list[int]]
    """Counts; rows are the true classes, columns the predicted ones."""
    runtimes: dict[str, RuntimeMetrics]
    robustness: dict[str, float]
    """Accuracy on changed test images, by the change."""
    same_label_enlarged: float
    """Share of the images whose label stays when the file is enlarged eightfold."""


def evaluate(
    folder: Path, test: Split, class_names: Sequence[str], temperature: float
) -> tuple[Evaluation, Probabilities]:
    """Measure the SavedModel in `folder` on the whole test set.

    Returns:
        The figures, and the reference runtime's probabilities (N, classes).

    Raises:
        RefusedVersionError: no runtime can load it.
    """
    labels = test.labels
    answers = _answer_by_runtime(folder, test)
    reference = answers[REFERENCE]
    predict = _load_classifier(folder, ROBUSTNESS_RUNTIME)
    changed = {name: predict(change(test.images), name).argmax(axis=1) for name, change in VARIANTS.items()}
    confusion = confusion_matrix(labels, reference.argmax(axis=1), labels=range(len(class_names)))
    correct = int(confusion.trace())
    interval = binomtest(correct, len(labels)).proportion_ci(method="wilson")
    evaluation = Evaluation(
        accuracy=correct / len(labels),
        accuracy_interval=(float(interval.low), float(interval.high)),
        top2_accuracy=_top2(reference, labels),
        negative_log_likelihood=_log_loss(reference, labels),
        calibration_error=measure_calibration_error(reference, labels),
        calibration_error_before_temperature=measure_calibration_error(
            change_temperature(reference, 1 / temperature), labels
        ),
        per_class_accuracy=dict(zip(class_names, (confusion.diagonal() / confusion.sum(axis=1)).tolist(), strict=True)),
        confusion=confusion.tolist(),
        runtimes={name: _measure_runtime(answer, reference, labels) for name, answer in answers.items()},
        robustness={name: float((answer == labels).mean()) for name, answer in changed.items()},
        same_label_enlarged=float((changed[ENLARGED_8] == answers[ROBUSTNESS_RUNTIME].argmax(axis=1)).mean()),
    )
    return evaluation, reference


def _answer_by_runtime(folder: Path, test: Split) -> dict[str, Probabilities]:
    answers = {}
    for name, (_, precision) in RUNTIMES.items():
        if precision == "int8" and not (folder / INT8_FILE).exists():
            continue
        try:
            answers[name] = _load_classifier(folder, name)(test.images, name)
        except RefusedVersionError:
            if precision != "bf16":  # a processor without bfloat16 can still measure the rest
                raise
    return answers


def _load_classifier(folder: Path, name: str) -> Classifier:
    runtime, precision = RUNTIMES[name]
    predict = load_runtime(folder, name=runtime, precision=precision, threads=0).predict

    def classify(images: npt.NDArray[np.uint8], title: str) -> Probabilities:
        answers = []
        with tqdm(desc=title, total=len(images), unit=" images", leave=False, disable=None) as bar:
            for start in range(0, len(images), BATCH_SIZE):
                answers.append(predict(images[start : start + BATCH_SIZE]).copy())
                bar.update(len(answers[-1]))
        return np.concatenate(answers)

    return classify


def _measure_runtime(answer: Probabilities, reference: Probabilities, labels: npt.NDArray[np.int64]) -> RuntimeMetrics:
    return RuntimeMetrics(
        accuracy=float((answer.argmax(axis=1) == labels).mean()),
        negative_log_likelihood=_log_loss(answer, labels),
        calibration_error=measure_calibration_error(answer, labels),
        agreement=float((answer.argmax(axis=1) == reference.argmax(axis=1)).mean()),
    )


def _log_loss(probabilities: Probabilities, labels: npt.NDArray[np.int64]) -> float:
    exact = probabilities.astype(np.float64)  # float32 rows sum to 1 only nearly, which scikit-learn remarks on
    return float(log_loss(labels, exact / exact.sum(axis=1, keepdims=True), labels=range(exact.shape[1])))


def _top2(probabilities: Probabilities, labels: npt.NDArray[np.int64]) -> float:
    if probabilities.shape[1] == 2:  # noqa: PLR2004 - of two classes the right one is always among two
        return 1.0
    return float(top_k_accuracy_score(labels, probabilities, k=2, labels=range(probabilities.shape[1])))


def compare(measured: Evaluation, recorded: Evaluation) -> list[str]:
    """Return what differs between two evaluations of one version by more than rounding, a line each."""
    pairs = {
        "accuracy": (measured.accuracy, recorded.accuracy),
        "top-2 accuracy": (measured.top2_accuracy, recorded.top2_accuracy),
        "negative log-likelihood": (measured.negative_log_likelihood, recorded.negative_log_likelihood),
        "expected calibration error": (measured.calibration_error, recorded.calibration_error),
    }
    for name in measured.runtimes.keys() & recorded.runtimes.keys():
        pairs[f"accuracy, {name}"] = (measured.runtimes[name].accuracy, recorded.runtimes[name].accuracy)
    for name in measured.robustness.keys() | recorded.robustness.keys():
        pairs[name] = (measured.robustness.get(name, np.nan), recorded.robustness.get(name, np.nan))
    return [
        f"{name}: measured {new:.4f}, recorded {old:.4f}"
        for name, (new, old) in pairs.items()
        if not abs(new - old) <= TOLERANCE
    ]


def format_table(evaluation: Evaluation) -> str:
    """Return the figures as Markdown tables."""
    low, high = evaluation.accuracy_interval
    rows = [
        ("accuracy", f"{evaluation.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%})"),
        ("right class among the first two", f"{evaluation.top2_accuracy:.2%}"),
        ("negative log-likelihood", f"{evaluation.negative_log_likelihood:.4f}"),
        ("expected calibration error", f"{evaluation.calibration_error:.2%}"),
        ("… before temperature scaling", f"{evaluation.calibration_error_before_temperature:.2%}"),
        ("same label when a PNG is enlarged ×8", f"{evaluation.same_label_enlarged:.2%}"),
    ]
    runtimes = [
        (
            name,
            f"{m.accuracy:.2%}",
            f"{m.negative_log_likelihood:.4f}",
            f"{m.calibration_error:.2%}",
            f"{m.agreement:.2%}",
        )
        for name, m in evaluation.runtimes.items()
    ]
    return "\n\n".join(
        [
            _markdown(("measure", "test set"), rows),
            _markdown(("class", "accuracy"), [(k, f"{v:.1%}") for k, v in evaluation.per_class_accuracy.items()]),
            _markdown(("runtime", "accuracy", "log-likelihood", "calibration error", "same label"), runtimes),
            _markdown(("test images changed", "accuracy"), [(k, f"{v:.2%}") for k, v in evaluation.robustness.items()]),
        ]
    )


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a version again: status 1 when its metadata has other figures, 2 when it can't be measured."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=main.__doc__)
    parser.add_argument("version", type=Path, help="folder of a version, such as models/minimodel/1")
    parser.add_argument("--data", default="cifar10", help="as for python -m training (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        metadata = ModelMetadata.model_validate_json((options.version / METADATA_FILE).read_bytes())
        recorded = Evaluation.model_validate(metadata.metrics.model_dump())
        data = load_data(options.data)
        if data.class_names != metadata.class_names:
            raise DataError(f"the data's classes {data.class_names} are not the model's {metadata.class_names}")
        measured, _ = evaluate(options.version, data.test, metadata.class_names, metadata.temperature)
    except (OSError, ValidationError, DataError, RefusedVersionError) as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(format_table(measured))
    differences = compare(measured, recorded)
    for line in differences:
        print(f"disagrees with {METADATA_FILE}: {line}", file=sys.stderr)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
