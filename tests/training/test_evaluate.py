"""The output and exit status of `python -m training.evaluate`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.contract import INT8_FILE, METADATA_FILE
from tests.training.images import draw_split, write_folder
from training.evaluate import main
from training.evaluation import Evaluation

ROOT = Path(__file__).parents[2]


def edit_metadata(folder, **changes):
    """Change fields of a version's metadata."""
    path = folder / METADATA_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_version_measured_again_agrees_with_its_metadata(quantized, image_folder, capsys):
    """The command prints the tables, including int8's, and exits with 0."""
    assert main([str(quantized), "--data", str(image_folder)]) == 0
    printed = capsys.readouterr().out
    assert "| accuracy |" in printed
    assert "| openvino int8 |" in printed


@pytest.fixture
def copy(version, tmp_path, monkeypatch):
    """A version whose measurement is replaced by its metadata, to save time."""
    recorded = Evaluation.model_validate(json.loads((version / METADATA_FILE).read_text())["metrics"])
    monkeypatch.setattr("training.comparison.evaluate", lambda *_, **__: (recorded, None))
    return shutil.copytree(version, tmp_path / "1")


def test_wrong_metadata_are_reported(copy, image_folder, capsys):
    """Another accuracy or temperature is reported with exit status 1."""
    metadata = json.loads((copy / METADATA_FILE).read_text())
    metadata["metrics"]["accuracy"] -= 0.2
    edit_metadata(copy, metrics=metadata["metrics"], temperature=1.02 * metadata["temperature"])
    assert main([str(copy), "--data", str(image_folder)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": measured")[0] for line in lines[-2:]] == [
        "differs from metadata.json: accuracy",
        "differs from metadata.json: golden probabilities from smoothing and temperature, largest log difference",
    ]


def test_a_wrong_share_of_smoothing_is_reported(copy, image_folder, capsys):
    """The graph removes its own share."""
    edit_metadata(copy, smoothing=json.loads((copy / METADATA_FILE).read_text())["smoothing"] + 0.01)
    assert main([str(copy), "--data", str(image_folder)]) == 1
    assert "golden probabilities from smoothing and temperature" in capsys.readouterr().err


def test_int8_may_differ_on_cpus_without_vnni(quantized, image_folder, tmp_path, monkeypatch, capsys):
    """Their 8-bit sums may overflow, so a difference does not change the exit status. A missing graph does."""
    metadata = json.loads((quantized / METADATA_FILE).read_text())
    measured = Evaluation.model_validate(metadata["metrics"])
    metadata["metrics"]["runtimes"]["openvino int8"]["accuracy"] -= 0.2
    copy = shutil.copytree(quantized, tmp_path / "2")
    edit_metadata(copy, metrics=metadata["metrics"])
    monkeypatch.setattr("training.comparison.evaluate", lambda *_, **__: (measured, None))
    for flags, status in ({"avx512_vnni"}, 1), ({"avx2"}, 0):
        monkeypatch.setattr("app.runtime.cpu.read_cpu_flags", lambda flags=flags: flags)
        assert main([str(copy), "--data", str(image_folder)]) == status
    assert "expected on this CPU" in capsys.readouterr().err
    without = measured.model_copy(
        update={"runtimes": {name: f for name, f in measured.runtimes.items() if name != "openvino int8"}}
    )
    monkeypatch.setattr("training.comparison.evaluate", lambda *_, **__: (without, None))
    shutil.rmtree(copy / INT8_FILE.split("/")[0])
    files = {path: digest for path, digest in metadata["files"].items() if not path.startswith("int8/")}
    edit_metadata(copy, files=files)
    assert main([str(copy), "--data", str(image_folder)]) == 1
    assert "openvino int8, accuracy: measured nothing" in capsys.readouterr().err


def refuse(folder, *arguments, capsys):
    """Return the line that the command prints for a version that can't be measured."""
    assert main([str(folder), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_version_that_cannot_be_measured_is_one_line(copy, image_folder, tmp_path, capsys):
    """A missing version, invalid metadata, or changed files: exit status 2."""
    data = ("--data", str(image_folder))
    assert "is not a version" in refuse(tmp_path / "none", *data, capsys=capsys)
    (copy / "golden.npz").write_bytes(b"other")
    assert "differ from the exported ones: digest differs" in refuse(copy, *data, capsys=capsys)
    edit_metadata(copy, temperature=0)
    error = refuse(copy, *data, capsys=capsys)
    assert "metadata.json is not valid: temperature: Input should be greater than 0" in error
    assert "pydantic" not in error


def test_other_data_are_refused(copy, image_folder, tmp_path, monkeypatch, capsys):
    """The message names the version's data, and the flag for them."""
    monkeypatch.setattr("keras.datasets.cifar10.load_data", lambda: pytest.fail("downloaded"))
    measured = f"it was measured on {image_folder.name} (image folder): 48 + 24 images, stored as png; set --data to"
    assert measured in refuse(copy, capsys=capsys)
    jpeg = tmp_path / "jpeg"
    write_folder(jpeg / "train", draw_split(16, seed=0), "jpeg")
    write_folder(jpeg / "test", draw_split(8, seed=1), "jpeg")
    error = refuse(copy, "--data", str(jpeg), capsys=capsys)
    assert f"contains other data (48 + 24 images, stored as jpeg): {measured}" in error
    edit_metadata(copy, data=json.loads((copy / METADATA_FILE).read_text())["data"] | {"test_size": 25})
    assert "48 + 25 images" in refuse(copy, "--data", str(image_folder), capsys=capsys)


def test_a_bad_flag_is_one_line_before_tensorflow_is_imported(tmp_path):
    """So it fails quickly."""
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('imported')")
    done = subprocess.run(
        [sys.executable, "-m", "training.evaluate", "models/minimodel/4", "--dat", "x", "--what"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
