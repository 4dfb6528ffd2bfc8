"""One training job: data → model → fit → evaluate → export."""

import importlib.metadata
from pathlib import Path

from app.contract import DataSet, TrainingRun
from training.calibration import fit_calibration
from training.data import load_data, split_validation
from training.devices import select_devices
from training.evaluate import evaluate, format_table
from training.export import (
    describe_model,
    export_model,
    next_version,
    predict_logits,
    publish_version,
    read_commit,
    rebuild_in_float32,
    stage_version,
)
from training.options import Options
from training.pipeline import measure_normalization
from training.quantize import quantize_model
from training.report import plot_mistakes, write_card
from training.run import require_writable
from training.train import train


def run_job(options: Options, run: Path, command: str) -> Path | None:
    """Train in the folder `run`, evaluate and export; `command` is what the card says was typed.

    Returns:
        The new version's folder; None without `--export`.

    Raises:
        TrainingError: with one line for the person who typed the command.
    """
    recipe = options.recipe
    devices = select_devices(require_gpu=options.require_gpu)
    commit = read_commit()  # before hours of training, in which the checkout may move on
    data = load_data(options.data, name=options.data_name, origin=options.data_source)
    require_writable(run.parent)
    models = options.models / options.name
    if options.export:
        require_writable(models)
    train_split, validation_split = split_validation(data.train, recipe.validation, recipe.seed)
    normalize = measure_normalization(train_split.images, recipe.normalization)
    print(f"training on {devices.description} in {devices.precision}; run {run}", flush=True)
    start = TrainingRun(
        recipe=options.recipe_name,
        command=command,
        commit=commit,
        hardware=devices.description,
        precision=devices.precision,
    )
    resume = options.resume is not None
    network = train(train_split, validation_split, recipe, normalize, devices, run, start, resume=resume)
    if not options.export:
        return None

    network = rebuild_in_float32(network, recipe)
    logits = predict_logits(network, normalize, validation_split.images)
    calibrate = fit_calibration(logits, validation_split.labels, recipe.label_smoothing)
    described = DataSet(
        name=data.name,
        source=data.source,
        pixel_encoding=data.pixel_encoding,
        train_size=len(train_split.labels),
        validation_size=len(validation_split.labels),
        test_size=len(data.test.labels),
    )
    with stage_version(models) as staged:
        export_model(network, normalize, calibrate, staged)
        if options.quantize:
            quantize_model(staged, train_split.images, recipe.seed)
        evaluation, probabilities = evaluate(staged, data.test, data.class_names, calibrate.temperature)
        version = next_version(models)
        write_card(
            staged,
            f"{options.name} {version}",
            recipe,
            described,
            evaluation,
            probabilities,
            data.test.labels,
            run,
            command=command,
            notes=options.notes.read_text() if options.notes else "",
        )
        fields = describe_model(
            network,
            options.name,
            version,
            recipe,
            class_names=data.class_names,
            data=described,
            metrics=evaluation.model_dump(mode="json"),
            temperature=calibrate.temperature,
            commit=commit,
        )
        if options.quantize:
            fields["libraries"]["nncf"] = importlib.metadata.version("nncf")
        folder = publish_version(staged, models, version, fields)
    plot_mistakes(data.test, probabilities, data.class_names).savefig(run / "mistakes.png", dpi=100)
    print(f"{format_table(evaluation)}\n\nexported {folder}")
    return folder
