"""The flags of the comparison, and its results."""

import json

import pytest

from benchmarks import serving
from benchmarks.start import Start


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--parts", "start"], "choose another folder with --results"),
        (["--services", "minimodel"], "choose another folder with --results"),
        (["--parts", "start", "--results", f"{serving.RESULTS}/../results"], "choose another folder with --results"),
        (["--parts", "stop"], "unknown: stop; there are "),
        (["--seconds", "0"], "--seconds: 0 is less than 1"),
    ],
)
def test_a_bad_flag_is_one_line(arguments, words, capsys):
    """Including a part that would overwrite all results."""
    with pytest.raises(SystemExit) as exit_:
        serving.main(arguments)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert words in error


def test_a_part_goes_to_another_folder(tmp_path, monkeypatch, capsys):
    """As Markdown and JSON, with the machine and the precision."""
    monkeypatch.setattr(serving, "measure_start", lambda *_, **__: Start([1.0, 3.0]))
    monkeypatch.setattr(serving.shutil, "which", lambda _: "/usr/bin/wrk")
    monkeypatch.setattr(serving.signal, "signal", lambda *_: None)
    assert serving.main(["--parts", "start", "--precision", "f32", "--results", str(tmp_path / "x")]) == 0
    text = (tmp_path / "x" / "serving.md").read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    assert "this service alone, after the comparison, run in f32." in text
    assert text.endswith("2.00 s, the median of 2 starts (1.00–3.00 s).\n")
    assert json.loads((tmp_path / "x" / "serving.json").read_text(encoding="utf-8"))["start"] == {"seconds": [1, 3]}
