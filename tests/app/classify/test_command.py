"""Behaviour of `python -m app.classify`."""

import json
import os

import pytest

from app.classify import command
from app.errors import InferenceError
from tests.app.classify.program import run, start
from tests.app.fakes import encode, make_model

pytestmark = pytest.mark.usefixtures("model")


def test_each_image_is_one_line(folder, capsys):
    """Name, label and probability, separated by tabs, in the order of the arguments."""
    assert run(folder / "b.JPEG", folder / "a.png") == 0
    out, err = capsys.readouterr()
    assert out == f"{folder}/b.JPEG\tblue\t1.00\n{folder}/a.png\tred\t1.00\n"
    assert err == ""


def test_json_has_the_fields_of_the_services_answer(folder, capsys):
    """One object per line, with the file's name. A failed file has `error` and `code` instead of a label."""
    assert run("--json", "--top-k", 2, folder / "a.png", folder / "notes.txt", folder / "none.png") == 1
    good, bad, missing = map(json.loads, capsys.readouterr().out.splitlines())
    assert good["image"] == f"{folder}/a.png"
    assert (good["label"], len(good["predictions"]), good["model"]) == ("red", 2, {"name": "tiny", "version": 1})
    assert bad == {"image": f"{folder}/notes.txt", "error": bad["error"], "code": "unsupported_image"}
    assert missing["code"] == "unreadable_file"
    assert bad["error"].startswith("the file is not an image")


def test_a_failed_file_does_not_affect_the_others(folder, capsys):
    """Each failure has its reason and a total follows; the exit status is 1."""
    (folder / "broken.png").write_bytes(encode()[:60])
    assert run(folder / "none.png", folder / "broken.png", folder / "a.png", folder / "notes.txt") == 1
    out, err = capsys.readouterr()
    assert out == f"{folder}/a.png\tred\t1.00\n"
    lines = err.splitlines()
    assert lines[0] == f"{folder}/none.png: No such file or directory"
    assert "damaged or cut short" in lines[1]
    assert "not an image in a supported format" in lines[2]
    assert lines[3] == "3 of 4 images failed"


def test_an_image_with_too_many_pixels_names_the_setting(folder, capsys, monkeypatch):
    """Here, unlike in the service, the user can change the setting."""
    monkeypatch.setenv("APP_MAX_IMAGE_PIXELS", "100")
    assert run(folder / "a.png") == 1
    assert "at most 100 are decoded" in (said := capsys.readouterr().err)
    assert "APP_MAX_IMAGE_PIXELS" in said


def test_a_failing_model_is_reported(monkeypatch, folder, capsys):
    """In one line, without a traceback."""

    def fail(_):
        raise InferenceError("the model failed")

    monkeypatch.setattr(command, "load_newest", lambda *_: make_model(fail))
    assert run(folder / "a.png") == 1
    assert capsys.readouterr().err == f"{folder}/a.png: the model failed\n"


def test_images_are_classified_in_full_batches(model, tmp_path, monkeypatch):
    """Only the last batch is smaller."""
    monkeypatch.setenv("APP_MAX_BATCH_SIZE", "4")
    for i in range(10):
        (tmp_path / f"{i}.png").write_bytes(encode())
    assert run(tmp_path) == 0
    assert sorted(model) == [2, 4, 4]


def test_few_images_are_shared_by_the_workers(model, folder, monkeypatch):
    """Otherwise one worker would get all images, and the others none."""
    monkeypatch.setenv("APP_INFERENCE_THREADS", "2")
    (folder / "d.png").write_bytes(encode())
    assert run(folder) == 0
    assert model == [2, 2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required"), (["--top-k", "0", "x"], "not a positive number"), (["--top-k", 5000 * "9", "x"], "9 digits"),
        (["--top-k", "4", "{folder}/a.png"], "3 classes"), ([""], "name is empty"), (["-", "-"], "only be read once"),
    ],
)  # fmt: skip
def test_a_bad_argument_is_refused(folder, capsys, arguments, said):
    """With exit status 2, before any file is read."""
    try:
        status = run(*(argument.format(folder=folder) for argument in arguments))
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert said in capsys.readouterr().err


def test_a_missing_model_is_reported(tmp_path):
    """With exit status 2 and the reason."""
    done = start("x.png", env={**os.environ, "APP_MODEL_DIR": str(tmp_path)})
    assert done.returncode == 2
    expected = f"{tmp_path} contains no version; expected {tmp_path}/<name>/<version>/"
    assert done.stderr.decode() == f"python -m app.classify: no version to load: {expected}\n"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("APP_MAX_BATCH_SIZE", "0", "APP_MAX_BATCH_SIZE: Input should be greater than or equal to 1"),
        (
            "APP_API_KEYS",
            "short",
            "APP_API_KEYS: a key needs at least 16 characters (generate one: openssl rand -hex 16)",
        ),
    ],
)
def test_a_bad_setting_is_one_line(folder, capsys, monkeypatch, name, value, said):
    """The variable and the error, in the service's words."""
    monkeypatch.setenv(name, value)
    assert run(folder / "a.png") == 2
    assert capsys.readouterr().err == f"python -m app.classify: {said}\n"


def test_a_progress_bar_is_shown_on_a_terminal(folder, capsys, monkeypatch):
    """For folders only, and not if the output goes to a file or a pipe."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    run(folder)
    assert "3/3" in capsys.readouterr().err
    run(folder / "a.png")
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("familiar")
def test_an_unfamiliar_image_is_marked(folder, capsys):
    """In the last column. In JSON, each image has its typicality."""
    (folder / "black.png").write_bytes(encode("black"))
    assert run("--top-k", 2, folder / "black.png", folder / "a.png") == 0
    assert [line.split("\t")[5:] for line in capsys.readouterr().out.splitlines()] == [["unfamiliar"], []]
    assert run("--json", folder / "black.png", folder / "a.png") == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["typicality"] for answer in answers] == [0, 0.333333]


def test_json_has_no_typicality_if_the_version_has_none(folder, capsys):
    """The field is absent, not null, as in the service's answers."""
    assert run("--json", folder / "a.png") == 0
    assert "typicality" not in json.loads(capsys.readouterr().out)
