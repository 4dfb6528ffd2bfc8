import json
import shutil

import numpy as np
import pytest

from app.contract import METADATA_FILE
from training.calibration import measure_calibration_error
from training.evaluate import Evaluation, compare, format_table, main


@pytest.fixture(scope="module")
def recorded(version) -> Evaluation:
    return Evaluation.model_validate(json.loads((version / METADATA_FILE).read_text())["metrics"])


def test_figures_agree_with_each_other(recorded):
    """Accuracy is the confusion matrix's diagonal, lies in its interval, and is the mean over equally large classes."""
    confusion = np.array(recorded.confusion)
    assert confusion.sum() == 24
    assert recorded.accuracy == pytest.approx(confusion.trace() / 24)
    assert recorded.accuracy == pytest.approx(np.mean(list(recorded.per_class_accuracy.values())))
    assert recorded.accuracy_interval[0] < recorded.accuracy < recorded.accuracy_interval[1]
    assert recorded.accuracy <= recorded.top2_accuracy <= 1


def test_every_runtime_that_serves_is_measured(recorded):
    """TensorFlow and OpenVINO in float32 give every image the same label."""
    assert recorded.runtimes["openvino f32"].agreement == 1
    assert recorded.runtimes["openvino f32"].accuracy == recorded.runtimes["tensorflow f32"].accuracy


def test_version_measured_again_agrees_with_its_metadata(quantized, image_folder, capsys):
    """`python -m training.evaluate` prints the tables, those of int8 too, and ends with 0."""
    assert main([str(quantized), "--data", str(image_folder)]) == 0
    printed = capsys.readouterr().out
    assert "| accuracy |" in printed
    assert "| openvino int8 |" in printed


def test_other_figures_in_the_metadata_are_refused(version, recorded, image_folder, tmp_path, monkeypatch, capsys):
    """A better accuracy than the model's own ends with 1 and says so."""
    monkeypatch.setattr("training.evaluate.evaluate", lambda *_: (recorded, None))
    copy = shutil.copytree(version, tmp_path / "1")
    metadata = json.loads((copy / METADATA_FILE).read_text())
    metadata["metrics"]["accuracy"] += 0.05
    (copy / METADATA_FILE).write_text(json.dumps(metadata))
    assert main([str(copy), "--data", str(image_folder)]) == 1
    assert "disagrees with metadata.json: accuracy: measured" in capsys.readouterr().err


def test_what_can_not_be_measured_is_one_line(tmp_path, image_folder, capsys):
    """No version there: status 2."""
    assert main([str(tmp_path), "--data", str(image_folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_rounding_is_no_disagreement(recorded):
    """A few of ten thousand images may fall otherwise on another processor; a missing figure may not."""
    assert compare(recorded.model_copy(update={"accuracy": recorded.accuracy + 0.001}), recorded) == []
    assert compare(recorded.model_copy(update={"robustness": {}}), recorded) != []


def test_tables_show_every_figure(recorded):
    """Classes, runtimes and changed images, a row each."""
    table = format_table(recorded)
    for name in (*recorded.per_class_accuracy, *recorded.runtimes, *recorded.robustness):
        assert f"| {name} |" in table


def test_calibration_error_before_temperature_is_that_of_temperature_1(version, recorded, image_folder):
    """It is what the graph would give with its temperature taken out."""
    from app.runtime import load_runtime  # noqa: PLC0415
    from training.calibration import change_temperature  # noqa: PLC0415
    from training.data import load_data  # noqa: PLC0415

    temperature = json.loads((version / METADATA_FILE).read_text())["temperature"]
    test = load_data(str(image_folder)).test
    probabilities = load_runtime(version, name="openvino", precision="f32", threads=1).predict(test.images)
    raw = change_temperature(probabilities, 1 / temperature)
    assert recorded.calibration_error_before_temperature == pytest.approx(
        measure_calibration_error(raw, test.labels), abs=1e-3
    )
