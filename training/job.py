"""One training job: data → model → fit → evaluate → export."""

import importlib.metadata
import shlex
from pathlib import Path
from typing import NamedTuple

import keras
import tensorflow as tf

from app.contract import DataSet, TrainingRun
from app.errors import RefusedVersionError
from training.calibration import fit_calibration
from training.config import Recipe
from training.data import Data, Split, load_data, split_validation
from training.devices import select_devices
from training.errors import ExportError, FullError
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
from training.metrics import evaluate
from training.mistakes import write_mistakes
from training.options import Options
from training.pipeline import Normalization, measure_normalization
from training.plots import plot_mistakes
from training.promote import next_version
from training.quantize import quantize_model
from training.report import Card, format_table, write_card
from training.run import read_history, read_start, require_writable
from training.summary import count_copies, describe_overlap, summarize
from training.train import train
from training.typicality import fit_typicality


class Fit(NamedTuple):
    """A fitted network, and what it was fitted to."""

    train: Split
    validation: Split
    """What it was judged by on the way, and is calibrated on."""
    normalize: Normalization
    network: keras.Model
    """(N, 32, 32, 3) float32 → (N, classes) float32, in any precision."""


def run_job(options: Options, run: Path, command: str) -> Path | None:
    """Train in the folder `run`, evaluate and export; `command` is what the card says was typed.

    Returns:
        The new version's folder; None without `--export`.

    Raises:
        TrainingError: with one line for the person who typed the command.
    """
    recipe = options.recipe
    devices = select_devices(require_gpu=options.require_gpu)
    start = TrainingRun(
        recipe=options.recipe_name,
        command=command,
        commit=read_commit(),  # before hours of training, in which the checkout may move on
        hardware=devices.description,
        precision=devices.precision,
    )
    data = load_data(
        options.data,
        name=options.data_name,
        origin=options.data_source,
        seed=recipe.seed,
        skip_damaged=options.skip_damaged,
    )
    require_writable(run)
    if options.export:
        require_writable(options.models / options.name)
    train_split, validation_split = data.train, data.validation
    if validation_split is None:
        train_split, validation_split = split_validation(data.train, recipe.validation, recipe.seed, data.class_names)
    print(summarize(data, train_split, validation_split), flush=True)
    normalize = measure_normalization(train_split.images, recipe.normalization)
    print(f"training on {devices.description} in {devices.precision}; run {run}", flush=True)
    resume = options.resume is not None
    try:
        network = train(train_split, validation_split, recipe, normalize, devices, run, start, resume=resume)
    except tf.errors.ResourceExhaustedError as error:
        raise FullError(
            f"no room: {' '.join(str(error).split())}; --resume goes on after the last finished epoch"
        ) from error
    if not options.export:
        return None
    return export_run(options, run, data, Fit(train_split, validation_split, normalize, network), start.commit)


def export_run(options: Options, run: Path, data: Data, fit: Fit, commit: str) -> Path:
    """Calibrate, export, measure and describe what was fitted in the folder `run`; the test set is used here alone.

    Args:
        options: what the command line said.
        run: the run's folder, which tells how it was started.
        data: what it was fitted to a part of.
        fit: the network, and what it was fitted to.
        commit: of the code that exports it.

    Returns:
        The new version's folder.

    Raises:
        ExportError: the exported files do not answer as the network does, no runtime loads them, or they can't be put
            in place.
    """
    recipe = options.recipe
    served = _fit_served_model(fit, recipe)
    calibrate = served.calibrate
    described = _describe_data(data, fit)
    start = read_start(run)
    models = options.models / options.name
    again = f"{shlex.join(['--resume', str(run)])} measures and exports the run once more"
    with stage_version(models) as staged:
        try:
            export_model(served, staged)
            if options.quantize:
                quantize_model(staged, fit.train.images, fit.validation.images, recipe.seed)
            evaluation, probabilities = evaluate(staged, data.test, data.class_names, calibrate.smoothing)
        except (RefusedVersionError, tf.errors.OpError) as error:  # TensorFlow's, of a full disk say, has many lines
            raise ExportError(f"no version: {' '.join(str(error).split())}; {again}") from error
        version = next_version(models)
        notes = "\n".join(file.read_text(encoding="utf-8") for file in options.notes)
        title = f"{options.name} {version}"
        overlap = count_copies(data).across
        remarks = (f"{describe_overlap(overlap, len(data.test.labels))}.",) if overlap else ()
        card = Card(title, recipe, start, commit, described, read_history(run), evaluation, calibrate, remarks, notes)
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
        # Last, so that whatever fails before, such as a disk that is full, leaves no version.
        try:
            folder = publish_version(staged, models, version, fields)
        except ExportError as error:
            raise ExportError(f"{error}; {again}") from error
    print(f"{format_table(evaluation)}\n\nexported {folder}")
    return folder


def _fit_served_model(fit: Fit, recipe: Recipe) -> ServedModel:
    """Calibrate a fitted network on the validation images, and measure what is typical of its features."""
    network, normalize = rebuild_in_float32(fit.network, recipe), fit.normalize
    logits = predict_logits(network, normalize, fit.validation.images)
    calibrate = fit_calibration(logits, fit.validation.labels, recipe.label_smoothing)
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
