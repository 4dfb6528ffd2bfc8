"""Measures an exported version again, on the data that its metadata describes, and compares the results."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from app.contract import GOLDEN_FILE, DataSet, ModelMetadata
from app.errors import RefusedVersionError
from app.runtime.cpu import has_int8
from training import cifar10
from training.calibration import Calibration
from training.config import OFFICIAL
from training.data import Data, load_data
from training.elsewhere import NamedFolder
from training.evaluation import Evaluation, evaluate, load_network
from training.failures import DataError, VersionError
from training.mistakes import write_mistakes
from training.numbering import read_metadata

TOLERANCE = 0.002  # of a share: 20 of 10,000 images, because other CPUs round differently
LOG_TOLERANCE = 0.01  # between logarithms of probabilities, ten times the usual rounding error
TOLERATED_IMAGES = 2  # if that is more than TOLERANCE
BF16 = "runtimes, openvino bf16, "  # not measured on CPUs without bfloat16
INT8 = "runtimes, openvino int8, "
ELSEWHERE = ("test_sets, ", "foreign, ")


class Difference(NamedTuple):
    """A figure that differs from the metadata; None if that side does not have it."""

    name: str
    measured: Any
    recorded: Any

    def __str__(self) -> str:
        return f"{self.name}: measured {_show(self.measured)}, recorded {_show(self.recorded)}"


class Remeasurement(NamedTuple):
    """A version's figures, measured again, and their differences from its metadata."""

    measured: Evaluation
    differences: list[Difference]
    expected: list[Difference]
    """Differences of int8, on a CPU whose 8-bit sums may overflow."""


def measure_again(
    folder: Path,
    source: str,
    *,
    skip_damaged: bool = False,
    mistakes: Path | None = None,
    test_sets: Sequence[NamedFolder] = (),
    foreign: Sequence[NamedFolder] = (),
) -> Remeasurement:
    """Measure the version in `folder` on the test set of `source`, and compare.

    `mistakes` is a file to write its wrong answers to; `test_sets` and `foreign` are as for
    `training.evaluation.evaluate`.

    Raises:
        VersionError: its metadata can't be read, its files are not the exported ones, or no runtime loads them.
        DataError: the data can't be loaded, or don't match the metadata. Pixels are not compared.
    """
    metadata = read_metadata(folder)
    data = _load_described_data(source, metadata, skip_damaged=skip_damaged)
    try:
        measured, probabilities = evaluate(
            folder, data.test, metadata.class_names, metadata.smoothing, test_sets=test_sets, foreign=foreign
        )
        with np.load(folder / GOLDEN_FILE) as golden:
            logits = load_network(folder)(golden["images"], "golden images")
            calibrate = Calibration(metadata.smoothing, metadata.temperature)
            calibrated = keras.ops.convert_to_numpy(calibrate(logits))
            distance = float(np.abs(np.log(calibrated / golden["probabilities"])).max())
    except RefusedVersionError as error:
        raise VersionError(f"{folder} can't be measured: {error}") from error
    if mistakes:
        write_mistakes(mistakes, data, probabilities)
    differences = compare(measured, metadata.metrics.model_dump(mode="json"))
    if not distance <= LOG_TOLERANCE:
        differences.append(
            Difference("golden probabilities from smoothing and temperature, largest log difference", distance, 0.0)
        )
    expected = [] if has_int8() else [d for d in differences if _is_int8_figure(d)]
    return Remeasurement(measured, [d for d in differences if d not in expected], expected)


def compare(measured: Evaluation, recorded: dict[str, Any]) -> list[Difference]:
    """Return the figures of an evaluation that differ from a version's `metrics` by more than rounding.

    A figure that only one side has is a difference, except those of bfloat16 and of images from other sources, which
    not every machine can measure.
    """
    new, old = dict(_list_figures(measured.model_dump(mode="json"))), dict(_list_figures(recorded))
    sizes = dict(zip(measured.per_class_accuracy, map(sum, measured.confusion), strict=True))
    differences = []
    for name in new | old:
        if name.startswith((BF16, *ELSEWHERE)) and not (name in new and name in old):
            continue
        kind, _, detail = name.partition(", ")
        images = sizes.get(detail, 0) if kind == "per_class_accuracy" else sum(sizes.values())
        tolerance = TOLERATED_IMAGES if kind == "confusion" else max(TOLERANCE, TOLERATED_IMAGES / max(images, 1))
        if not _agree(new.get(name), old.get(name), tolerance):
            differences.append(Difference(name, new.get(name), old.get(name)))
    return differences


def _load_described_data(source: str, metadata: ModelMetadata, *, skip_damaged: bool) -> Data:
    """Load the data, and check that class names, sizes and file suffixes match the metadata."""
    recorded = metadata.data
    was = (
        f"it was measured on {recorded.name} ({recorded.source}): {_describe(recorded)}; "
        "set --data to that data's folder"
    )
    if source == OFFICIAL and recorded.source != cifar10.SOURCE:  # no need to download it first
        raise DataError(f"{metadata.name} {metadata.version} can't be measured on {source}: {was}")
    data = load_data(
        source, size=metadata.input.shape[0], seed=int(metadata.recipe.get("seed", 0)), skip_damaged=skip_damaged
    )
    if data.class_names != metadata.class_names:
        raise DataError(f"the data's classes {data.class_names} are not the model's {metadata.class_names}")
    # Without a validation folder, the number of images that were held out for validation is not known here.
    train_size = len(data.train.labels) - (recorded.validation_size if data.validation is None else 0)
    found = recorded.model_copy(
        update={"pixel_encoding": data.pixel_encoding, "train_size": train_size, "test_size": len(data.test.labels)}
    )
    if found != recorded:
        raise DataError(f"{source} contains other data ({_describe(found)}): {was}")
    return data


def _describe(data: DataSet) -> str:
    return f"{data.train_size + data.validation_size:,} + {data.test_size:,} images, stored as {data.pixel_encoding}"


def _list_figures(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """List the numbers of a nested record with their paths; leave out what was not measured."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _list_figures(item, f"{name}, {key}" if name else str(key))
    elif value is not None:
        yield name, value


def _agree(new: Any, old: Any, tolerance: float) -> bool:
    return isinstance(new, int | float) and isinstance(old, int | float) and abs(new - old) <= tolerance


def _is_int8_figure(difference: Difference) -> bool:
    return difference.name.startswith(INT8) and None not in (difference.measured, difference.recorded)


def _show(figure: Any) -> str:
    return "nothing" if figure is None else f"{figure:.4f}" if isinstance(figure, float) else repr(figure)
