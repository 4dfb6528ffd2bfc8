"""One training job: data → model → fit → evaluate → export."""

import importlib.metadata
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from app.contract import DataSet, TrainingRun
from app.errors import RefusedVersionError
from training.calibration import fit_calibration
from training.config import Options, Recipe
from training.data import Data, Split, load_data, split_validation
from training.devices import Devices, select_devices
from training.evaluation import evaluate
from training.export import (
    ServedModel,
    describe_model,
    export_model,
    predict_features,
    predict_logits,
    publish_version,
    read_commit,
    rebuild_in_float32,
    stage_version,
)
from training.failures import ExportError, FullError, VersionError
from training.finetune import Weights, fit_normalization, load_start, make_initial_weights
from training.folds import FOLDS_FILE, Folds, cross_validate, describe_folds, read_folds, save_folds
from training.mistakes import write_mistakes
from training.numbering import CANDIDATE_PREFIX, find_newest, next_candidate, next_version
from training.pipeline import Normalization, measure_normalization
from training.plots import plot_mistakes
from training.quantize import quantize_model
from training.report import Card, format_elsewhere, format_table, write_card
from training.rival import compare_with_newest, require_same_classes
from training.run import format_resume, read_history, read_kept_epoch, read_start, require_writable, write_job
from training.split import count_smallest_class
from training.summary import count_copies, describe_overlap, summarize
from training.train import train
from training.typicality import fit_typicality

FOLDS = 3
"""Default number of folds of cross-validation."""
SMALL_TEST = 200
"""With fewer test images, which measure accuracy to 7 points at best, cross-validation is the default."""


class Fit(NamedTuple):
    """A fitted network and its data."""

    train: Split
    validation: Split
    """The images for choosing the epoch, and for calibration."""
    normalize: Normalization
    network: keras.Model
    """(N, H, W, 3) float32 → (N, classes) float32."""


def run_job(options: Options, run: Path, command: str) -> Path | None:
    """Train in the folder `run`, evaluate and export; `command` is the command line, for the card.

    Returns:
        The new version's folder; None without `--export`.

    Raises:
        TrainingError: with one line for the user.
    """
    recipe = options.recipe
    devices = select_devices(require_gpu=options.require_gpu)
    origin = load_start(options.start) if options.start else None
    start = TrainingRun(
        recipe=options.recipe_name,
        command=command,
        commit=read_commit(),  # before the training, during which the checkout can change
        hardware=devices.description,
        precision=devices.precision,
        start=origin.name if origin else None,
    )
    data = load_data(
        options.data,
        name=options.data_name,
        origin=options.data_source,
        size=recipe.size,
        seed=recipe.seed,
        skip_damaged=options.skip_damaged,
    )
    require_writable(run)
    if options.export:
        require_same_classes(options.models / options.name, data.class_names)
        require_writable(options.models / options.name)
    train_split, validation_split = data.train, data.validation
    if validation_split is None:
        train_split, validation_split = split_validation(data.train, recipe.validation, recipe.seed, data.class_names)
    print(summarize(data, train_split, validation_split), flush=True)
    if origin:
        if origin.residual != recipe.residual:
            raise VersionError(f"can't start from {options.start}: its --residual was {origin.residual}")
        normalize = fit_normalization(origin.normalize, recipe.size)
        origin = origin._replace(normalize=normalize)
        initialize = partial(make_initial_weights, origin, recipe=recipe, class_names=data.class_names)
    else:
        normalize, initialize = measure_normalization(train_split.images, recipe.normalization), None
    print(f"training on {devices.description} in {devices.precision}; run {run}", flush=True)
    resume = options.resume is not None
    if not resume:
        write_job(run, options)
    try:
        weights = initialize(train_split) if initialize else None
        network = train(
            train_split, validation_split, recipe, normalize, devices, run, start, resume=resume, weights=weights
        )
        if not options.export:
            return None
        fit = Fit(train_split, validation_split, normalize, rebuild_in_float32(network, recipe))
        folds = _cross_validate(options, run, data, fit, devices, initialize)
    except tf.errors.ResourceExhaustedError as error:
        raise FullError(
            f"out of disk space or memory: {' '.join(str(error).split())}; "
            f"{format_resume(run)} continues after the last finished epoch"
        ) from error
    return export_run(options, run, data, fit, folds, start.commit)


def _cross_validate(
    options: Options, run: Path, data: Data, fit: Fit, devices: Devices, initialize: Callable[[Split], Weights] | None
) -> Folds | None:
    """Cross-validate on the training and validation images, with `--folds` or if the test set is small."""
    count = options.folds
    if count is None:
        count = FOLDS if len(data.test.labels) < SMALL_TEST else 0
    split = Split(
        np.concatenate([fit.train.images, fit.validation.images]),
        np.concatenate([fit.train.labels, fit.validation.labels]),
    )
    count = min(count, count_smallest_class(*split))
    if count < 2:  # noqa: PLR2004 - no folds
        return None
    path = run / FOLDS_FILE
    if path.exists() and options.resume is not None and (saved := read_folds(path)).folds == count:
        return saved
    print(f"cross-validating with {count} folds", flush=True)
    folds = cross_validate(split, count, options.recipe, fit.normalize, devices, initialize)
    save_folds(path, folds)
    return folds


def export_run(options: Options, run: Path, data: Data, fit: Fit, folds: Folds | None, commit: str) -> Path:
    """Calibrate, export and measure a fitted network, and write its card. Only this function uses the test set.

    Args:
        options: from the command line.
        run: the run's folder.
        data: the whole data set.
        fit: the network, and the data that it was fitted to.
        folds: answers of cross-validation to calibrate on; None to calibrate on the validation images.
        commit: of the code that exports it.

    Returns:
        The new version's folder.

    Raises:
        ExportError: the exported files and the network give different answers, no runtime loads the files, or they
            can't be renamed.
    """
    recipe = options.recipe
    served = _fit_served_model(fit, folds, recipe)
    calibrate = served.calibrate
    described = _describe_data(data, fit)
    start = read_start(run)
    models = options.models / options.name
    again = f"{format_resume(run)} measures and exports the run once more"
    with stage_version(models) as staged:
        try:
            export_model(served, staged)
            if options.quantize:
                quantize_model(staged, fit.train.images, fit.validation.images, recipe.seed)
            evaluation, probabilities = evaluate(
                staged,
                data.test,
                data.class_names,
                calibrate.smoothing,
                test_sets=options.test_sets,
                foreign=options.foreign,
            )
        except (RefusedVersionError, tf.errors.OpError) as error:  # TensorFlow's errors can have many lines
            raise ExportError(f"the export failed: {' '.join(str(error).split())}; {again}") from error
        newest = find_newest(models)
        comparison = compare_with_newest(newest, options, data, probabilities) if newest else None
        is_set_aside = comparison is not None and options.promote == "if-better" and not comparison.is_better
        version = next_candidate(models) if is_set_aside else next_version(models)
        notes = "\n".join(file.read_text(encoding="utf-8") for file in options.notes)
        title = options.name if is_set_aside else f"{options.name} {version}"  # promotion gives the number
        overlap = count_copies(data).across
        remarks = [f"{describe_overlap(overlap, len(data.test.labels))}."] if overlap else []
        if folds:
            remarks.append(describe_folds(folds))
        card = Card(
            title,
            recipe,
            start,
            commit,
            described,
            read_history(run),
            evaluation,
            calibrate,
            read_kept_epoch(run),
            "the answers of cross-validation" if folds else "the validation images",
            tuple(remarks),
            notes,
        )
        write_card(staged, card, probabilities, data.test.labels)
        fields = describe_model(
            served.network,
            options.name,
            version,
            recipe,
            class_names=data.class_names,
            training=start,
            data=described,
            metrics=evaluation.model_dump(mode="json"),
            smoothing=calibrate.smoothing,
            temperature=calibrate.temperature,
            commit=commit,
        )
        if options.quantize:
            fields["libraries"]["nncf"] = importlib.metadata.version("nncf")
        plot_mistakes(data.test, probabilities, data.class_names).savefig(run / "mistakes.png", dpi=100)
        write_mistakes(run / "mistakes.csv", data, probabilities)
        # Last, so that a failure before, such as a full disk, leaves no version.
        try:
            folder = models / f"{CANDIDATE_PREFIX if is_set_aside else ''}{version}"
            publish_version(staged, folder, fields)
        except ExportError as error:
            raise ExportError(f"{error}; {again}") from error
    print(f"{format_table(evaluation)}\n\n{format_elsewhere(evaluation)}")
    for line in [*([describe_folds(folds)] if folds else []), *([str(comparison)] if comparison else [])]:
        print(f"\n{line}")
    print(f"\nexported {folder}")
    if is_set_aside:
        print(f"set aside, because it is no better; python -m training.promote {folder} publishes it")
    return folder


def _fit_served_model(fit: Fit, folds: Folds | None, recipe: Recipe) -> ServedModel:
    """Calibrate a fitted network by cross-validation or on the validation images, and fit its typicality."""
    network, normalize = fit.network, fit.normalize
    if folds:
        logits, labels = folds.logits, folds.labels
    else:
        logits, labels = predict_logits(network, normalize, fit.validation.images), fit.validation.labels
    calibrate = fit_calibration(logits, labels, recipe.label_smoothing)
    features, held_out = (predict_features(network, normalize, split.images) for split in (fit.train, fit.validation))
    return ServedModel(network, normalize, calibrate, fit_typicality(features, fit.train.labels, held_out))


def _describe_data(data: Data, fit: Fit) -> DataSet:
    return DataSet(
        name=data.name,
        source=data.source,
        pixel_encoding=data.pixel_encoding,
        train_size=len(fit.train.labels),
        validation_size=len(fit.validation.labels),
        test_size=len(data.test.labels),
    )
