"""Behaviour of training.__main__."""

import errno
import json
import os
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.figure import Figure

from app.contract import GOLDEN_FILE, METADATA_FILE
from app.errors import RefusedVersionError
from app.runtime.load import load_runtime
from tests.training.fitting import SMALL_RUN, shrink_network, train_shallow_network
from tests.training.images import draw_split, write_folder
from training.__main__ import main
from training.run import (
    CHECKPOINT_FILE,
    START_FILE,
    read_start,
)

FULL = tf.errors.ResourceExhaustedError(None, None, "variables/x; No space left on device\n [Op:SaveV2]")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("flag", "status", "stderr_lines"), [("--epoch", 2, 1), ("--help", 0, 0), ("--resume", 2, 1)])
def test_flags_and_runs_are_checked_before_tensorflow_is_imported(flag, status, stderr_lines, tmp_path):
    """So errors appear at once, without TensorFlow's own messages."""
    for library in ("tensorflow", "keras"):
        (tmp_path / f"{library}.py").write_text("raise SystemExit('imported')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "training", flag, "3"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (status, stderr_lines), done.stderr


def test_missing_data_is_one_line_and_status_2(tmp_path, capsys):
    """Nothing is trained without data."""
    assert main(["--data", str(tmp_path / "none"), "--runs", str(tmp_path / "runs")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list((tmp_path / "runs").iterdir())


def test_require_gpu_without_one_is_refused(monkeypatch, capsys):
    """At once, with the devices found."""
    monkeypatch.setattr("training.devices.tf.config.list_physical_devices", lambda kind=None: [])  # noqa: ARG005
    assert main(["--require-gpu"]) == 2
    assert "no GPU" in capsys.readouterr().err


def test_a_finished_run_can_be_exported_again(version, quantized):
    """`--resume` exports the newest run of that name as the next version, with the same weights."""
    assert (version.name, quantized.name) == ("1", "2")
    first, again = (read_golden(folder) for folder in (version, quantized))
    assert again.keys() <= first.keys()  # without images that quantization changes
    assert all(answer == first[image] for image, answer in again.items())


def test_other_classes_are_refused_before_training(version, tmp_path, monkeypatch, capsys):
    """A running service would replace the old classes. The message suggests another --name."""
    monkeypatch.setattr("training.job.train", lambda *_, **__: pytest.fail("trained"))
    write_folder(tmp_path / "data", draw_split(4, 0), "png")
    shutil.rmtree(tmp_path / "data" / "stripes")
    models = version.parent.parent
    flags = ["--models", str(models), "--name", "shapes", "--runs", f"{tmp_path}/runs"]
    assert main(["--data", f"{tmp_path}/data", *flags]) == 2
    error = capsys.readouterr().err
    assert f"{version.parent}/" in error
    assert "has the classes disc, square, stripes, but the data has disc, square" in error
    assert error.endswith("set another --name\n")


def test_promote_if_better_sets_aside_a_version_that_is_no_better(quantized, image_folder, tmp_path, capsys):
    """The same weights have the same accuracy. Both figures are printed, and the command that promotes it."""
    models = shutil.copytree(quantized.parent, tmp_path / "models" / "shapes")
    run = str(next((quantized.parents[2] / "runs").iterdir()))
    places = ("--data", str(image_folder), "--models", f"{tmp_path}/models", "--promote", "if-better", "--no-quantize")
    train_shallow_network("--resume", run, *places)
    out = capsys.readouterr().out
    assert {path.name for path in models.iterdir()} == {"1", "2", ".candidate-3"}
    share = f"{100 * json.loads((quantized / METADATA_FILE).read_text())['metrics']['accuracy']:.2f} %"
    assert f"24 test images, the new version classifies {share} correctly, {models}/2 {share}." in out
    assert f"python -m training.promote {models}/.candidate-3" in out
    assert (models / ".candidate-3" / "card" / "README.md").read_text().startswith("# shapes\n")


def test_a_small_data_set_is_cross_validated(image_folder, tmp_path, monkeypatch, capsys):
    """With fewer than 200 test images, here of 48 pixels. The card has the accuracy."""
    shrink_network(monkeypatch)
    flags = ("--models", f"{tmp_path}/models", "--runs", f"{tmp_path}/runs", "--size", "48", "--name", "large")
    small_run = [flag for flag in SMALL_RUN if flag not in {"--folds", "0"}]
    assert main(["--data", str(image_folder), *flags, *small_run, "--epochs", "1"]) == 0
    version = tmp_path / "models" / "large" / "1"
    said = "Cross-validation in 3 folds on the 48 training and validation images: accuracy "
    assert said in capsys.readouterr().out
    assert said in (version / "card" / "README.md").read_text()
    with np.load(version / GOLDEN_FILE) as golden:
        assert golden["images"].shape[1:] == (48, 48, 3)
        answers = load_runtime(version, name="openvino", precision="f32", threads=1).predict(golden["images"])
        np.testing.assert_allclose(answers.probabilities, golden["probabilities"], atol=0.002)
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "mistakes.csv").read_text().startswith("file,said,probability,is\n")


def test_another_number_of_folds_is_measured_when_a_run_is_resumed(image_folder, tmp_path, monkeypatch, capsys):
    """With the same number, the saved answers are enough."""
    shrink_network(monkeypatch)
    flags = ("--models", f"{tmp_path}/models", "--runs", f"{tmp_path}/runs")
    small_run = [flag for flag in SMALL_RUN if flag not in {"--folds", "0"}]
    assert main(["--data", str(image_folder), *flags, *small_run, "--epochs", "1", "--folds", "2"]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    capsys.readouterr()
    for folds, is_measured in (("2", False), ("3", True)):
        assert main(["--resume", str(run), "--folds", folds]) == 0
        out = capsys.readouterr().out
        assert ("cross-validating" in out) is is_measured
        assert f"Cross-validation in {folds} folds" in out


def read_golden(folder: Path) -> dict[bytes, list[float]]:
    with np.load(folder / GOLDEN_FILE) as golden:
        answers = zip(golden["images"], golden["probabilities"], strict=True)
        return {bytes(image): answer.tolist() for image, answer in answers}


@pytest.mark.parametrize("flag", ["--runs", "--models"])
def test_an_unwritable_folder_is_refused_before_training(flag, image_folder, tmp_path, monkeypatch, capsys):
    """In one line, with the folder and the reason."""
    monkeypatch.setattr("training.job.train", lambda *_, **__: pytest.fail("trained"))
    (tmp_path / "file").touch()
    folders = {"--runs": f"{tmp_path}/runs", "--models": f"{tmp_path}/models"} | {flag: f"{tmp_path}/file/folder"}
    assert main(["--data", str(image_folder), *chain(*folders.items())]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"python -m training: can't write into {tmp_path}/file/folder")
    assert error.endswith(": Not a directory\n")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "checkpoint.npz"),
            "[Errno 28] No space left on device: 'checkpoint.npz'",
        ),
        (
            FULL,
            (
                "out of disk space or memory: variables/x; No space left on device [Op:SaveV2]; "
                "python -m training --resume {run} continues after the last finished epoch"
            ),
        ),
    ],
)
def test_a_full_disk_is_one_line(error, words, image_folder, tmp_path, monkeypatch, capsys):
    """Like any other error of the system during a run."""

    def fill(*_, **__):
        raise error

    monkeypatch.setattr("training.job.train", fill)
    assert main(["--data", str(image_folder), "--runs", f"{tmp_path}/runs", "--no-export"]) == 2
    (run,) = (tmp_path / "runs").iterdir()
    assert capsys.readouterr().err == f"python -m training: {words.format(run=run)}\n"


@pytest.mark.parametrize(("flag", "inside"), [("--runs", ""), ("--models", "/minimodel")])
def test_a_path_that_is_not_utf_8_is_refused_before_training(flag, inside, image_folder, tmp_path, capsys):
    """TensorFlow can't write to it."""
    folders = {"--runs": f"{tmp_path}/runs", "--models": f"{tmp_path}/models"} | {flag: f"{tmp_path}/\udcff"}
    assert main(["--data", str(image_folder), *chain(*folders.items())]) == 2
    told = f"can't write into '{tmp_path}/\\udcff{inside}': TensorFlow needs paths in UTF-8\n"
    assert capsys.readouterr().err.endswith(told)


def test_a_command_that_is_not_utf_8_is_escaped(image_folder, tmp_path, monkeypatch):
    """A path of the data may be invalid Unicode, but the card is UTF-8."""
    shrink_network(monkeypatch)
    (tmp_path / "\udcff").symlink_to(image_folder)
    flags = ("--data-name", "x", "--runs", f"{tmp_path}/runs", "--no-export")
    assert main(["--data", f"{tmp_path}/\udcff", *flags, *SMALL_RUN, "--epochs", "1"]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert f"--data '{tmp_path}/\\udcff'" in read_start(run).command


def test_no_export_does_not_use_the_test_set(image_folder, tmp_path, monkeypatch):
    """Recipes are compared on the validation images only."""
    shrink_network(monkeypatch)
    monkeypatch.setattr("training.job.evaluate", lambda *_: pytest.fail("test set used"))
    flags = ("--models", f"{tmp_path}/models", "--runs", f"{tmp_path}/runs", "--no-export")
    assert main(["--data", str(image_folder), *flags, *SMALL_RUN, "--epochs", "1"]) == 0
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("step", "error", "words"),
    [
        (
            "export_model",
            FULL,
            "the export failed: variables/x; No space left on device [Op:SaveV2]; python -m training --resume ",
        ),
        (
            "quantize_model",
            RefusedVersionError("OpenVINO can't load it"),
            "the export failed: OpenVINO can't load it; python -m training --resume",
        ),
        (
            "evaluate",
            RefusedVersionError("OpenVINO can't load it"),
            "the export failed: OpenVINO can't load it; python -m training --resume",
        ),
        ("plot_mistakes", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "[Errno 28] No space left on device"),
    ],
)
def test_a_failed_export_is_one_line(step, error, words, image_folder, tmp_path, monkeypatch, capsys):
    """With the reason and the command that tries again. Nothing is left beside the versions."""

    def refuse(*_, **__):
        raise error

    shrink_network(monkeypatch)
    monkeypatch.setattr("training.job.quantize_model", lambda *_: None)
    monkeypatch.setattr(f"training.job.{step}", refuse)
    flags = ("--models", f"{tmp_path}/models", "--runs", f"{tmp_path}/runs", "--quantize")
    assert main(["--data", str(image_folder), *flags, *SMALL_RUN, "--epochs", "1"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"python -m training: {words}")
    assert not list((tmp_path / "models" / "minimodel").iterdir())


def test_a_number_taken_in_the_meantime_is_reported_with_the_next_step(image_folder, tmp_path, monkeypatch, capsys):
    """The command names the run, because the newest run may be another one."""

    def take_number(_test, _probabilities, _names):
        (tmp_path / "models" / "minimodel" / "1").mkdir()
        return Figure()

    shrink_network(monkeypatch)
    monkeypatch.setattr("training.job.plot_mistakes", take_number)
    flags = ("--models", f"{tmp_path}/models", "--runs", f"{tmp_path}/runs")
    assert main(["--data", str(image_folder), *flags, *SMALL_RUN, "--epochs", "1"]) == 2
    (run,) = (tmp_path / "runs").iterdir()
    advice = f"never overwritten; python -m training --resume {run} measures and exports the run once more\n"
    assert capsys.readouterr().err.endswith(advice)


def test_a_run_that_cannot_be_resumed_is_refused_at_once(tmp_path, monkeypatch, capsys):
    """Before data are loaded or a folder is made."""
    monkeypatch.setattr("training.job.run_job", lambda *_: pytest.fail("job started"))
    assert main(["--resume", f"{tmp_path}/runs/x"]) == 2
    assert capsys.readouterr().err == f"python -m training: nothing to resume: {tmp_path}/runs/x is not a folder\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("finished_epochs", [0, 1])
def test_an_interrupted_run_says_how_to_continue(finished_epochs, image_folder, tmp_path, monkeypatch, capsys):
    """Ctrl-C prints one line and exits with the status that shells use."""

    def be_interrupted(*arguments, **_):
        run = arguments[5]
        (run / START_FILE).touch()
        for _ in range(finished_epochs):
            (run / CHECKPOINT_FILE).touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("training.job.train", be_interrupted)
    assert main(["--data", str(image_folder), "--runs", str(tmp_path), "--no-export"]) == 130
    (run,) = tmp_path.iterdir()
    advice = (
        f"python -m training --resume {run} continues after the last finished epoch"
        if finished_epochs
        else "no epoch was finished"
    )
    assert capsys.readouterr().err.splitlines()[-1] == f"python -m training: interrupted; {advice}"
