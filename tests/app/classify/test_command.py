"""Behaviour of `python -m app.classify`."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.classify import command
from app.errors import InferenceError
from app.images.decoders import Decoders
from tests.app.fakes import encode, make_model, tell_brightness, tell_colours

ROOT = Path(__file__).parents[3]
MAX_BYTES = 10**6

pytestmark = pytest.mark.usefixtures("model")


@pytest.fixture
def model(monkeypatch):
    """Classify with a fake model; returns the sizes of its batches."""
    sizes = []

    def predict(images):
        sizes.append(len(images))
        return tell_colours(images)

    monkeypatch.setattr(command, "_load_newest", lambda *_: make_model(predict))
    return sizes


@pytest.fixture
def folder(tmp_path):
    """Images of several kinds, in folders, among other files."""
    (tmp_path / "more").mkdir()
    (tmp_path / "a.png").write_bytes(encode("red"))
    (tmp_path / "b.JPEG").write_bytes(encode("blue", kind="JPEG"))
    (tmp_path / "more" / "c.webp").write_bytes(encode("lime", kind="WEBP"))
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


@pytest.fixture
def familiar(model, monkeypatch):  # noqa: ARG001 -- replaces it
    """Classify instead with a fake model that has a typicality."""
    monkeypatch.setattr(command, "_load_newest", lambda *_: make_model(typicality=tell_brightness))


def run(*arguments: object) -> int:
    return command.main([str(argument) for argument in arguments])


def test_each_image_is_a_line(folder, capsys):
    """Name, label and probability by tabulators, in the order in which they were named."""
    assert run(folder / "b.JPEG", folder / "a.png") == 0
    out, err = capsys.readouterr()
    assert out == f"{folder}/b.JPEG\tblue\t1.00\n{folder}/a.png\tred\t1.00\n"
    assert err == ""


def test_a_folder_gives_its_images_in_order(folder, capsys):
    """Also those in its subfolders, by their names' endings; other files are counted on standard error."""
    (folder / "more" / "IMG_1.MOV").touch()
    assert run(folder) == 0
    out, err = capsys.readouterr()
    assert err == f"{folder}: skipped, not named as images: 1 × .mov, 1 × .txt\n"
    names = [line.split("\t")[0] for line in out.splitlines()]
    assert names == [f"{folder}/a.png", f"{folder}/b.JPEG", f"{folder}/more/c.webp"]


def test_what_systems_leave_is_skipped(folder, capsys):
    """It is neither classified nor counted in a folder; named by a shell's `*`, it gets a line."""
    (folder / "@eaDir").mkdir()
    for name in ("Thumbs.db", "._a.png", "@eaDir/a.png"):
        (folder / name).touch()
    (folder / "notes.txt").unlink()
    assert run(folder) == 0
    out, err = capsys.readouterr()
    assert (len(out.splitlines()), err) == (3, "")
    assert run(folder / "Thumbs.db", folder / "a.png") == 0
    out, err = capsys.readouterr()
    assert (len(out.splitlines()), err.count("Thumbs.db: skipped"), err.count("\n")) == (1, 1, 1)


def test_a_hidden_image_that_is_named_is_classified(folder, capsys):
    """Whoever types its name means it."""
    (folder / "a.png").rename(folder / ".a.png")
    assert run(folder / ".a.png") == 0
    assert capsys.readouterr().out == f"{folder}/.a.png\tred\t1.00\n"


def test_only_files_count_as_images(folder, capsys):
    """Not folders and pipes by that name."""
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    assert run(folder / "more", folder) == 0
    names = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [f"{folder}/{name}" for name in ("more/c.webp", "a.png", "b.JPEG", "more/c.webp")]


def test_links_that_lead_nowhere_are_named(folder, capsys):
    """The images beside them are classified."""
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    (folder / "itself.png").symlink_to(folder / "itself.png")
    assert run(folder) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert f"{folder}/gone.png: No such file or directory\n" in err
    assert f"{folder}/itself.png: Too many levels of symbolic links\n" in err


@pytest.fixture
def forbid(monkeypatch):
    """Forbid to list a folder, to root too, whom permissions don't stop."""

    def forbid(folder: Path) -> None:
        def scan(path):
            if str(path) == str(folder):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return scandir(path)

        scandir = os.scandir
        monkeypatch.setattr(os, "scandir", scan)

    return forbid


def test_a_folder_that_may_not_be_read_is_named(folder, capsys, forbid):
    """As one below another, and by name."""
    forbid(folder / "more")
    assert run(folder) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err.startswith(f"{folder}/more: Permission denied\n")
    assert run(folder / "more") == 1
    assert capsys.readouterr() == ("", f"{folder}/more: Permission denied\n")


@pytest.mark.parametrize("others", [["a.png"], []])
def test_a_folder_without_images_is_named(folder, capsys, others):
    """The others are classified, and exit status 1 says that something was missing."""
    (folder / "more" / "empty").mkdir()
    assert run(folder / "more" / "empty", *(folder / name for name in others)) == 1
    out, err = capsys.readouterr()
    assert out == "".join(f"{folder}/{name}\tred\t1.00\n" for name in others)
    assert err == f"{folder}/more/empty: no image in it\n"


def test_strange_names_keep_to_their_line(folder, capsys):
    """A tabulator, a backslash and bytes that are no Unicode are written as escapes; JSON gives the name back."""
    name = os.fsdecode(os.fsencode(folder) + b"/a\tb\\n\n\xff\xc3\xa9.png")
    (folder / "a.png").rename(name)
    (folder / "b.JPEG").unlink()
    (folder / "more" / "c.webp").write_bytes(b"")
    assert run(folder) == 1
    assert capsys.readouterr().out == rf"{folder}/a\tb\\n\n\xffé.png" + "\tred\t1.00\n"
    assert run("--json", folder) == 1
    line, _ = capsys.readouterr().out.splitlines()
    assert json.loads(line)["image"] == name


def test_files_larger_than_an_upload_may_be_are_refused(folder, capsys, monkeypatch):
    """Whatever has no size, too: it may never end."""
    monkeypatch.setenv("APP_MAX_UPLOAD_BYTES", "100000")
    (folder / "large.png").write_bytes(bytes(100_001))
    assert run(folder / "large.png", "/dev/zero", folder / "a.png") == 1
    out, err = capsys.readouterr()
    assert out == f"{folder}/a.png\tred\t1.00\n"
    said = "it has more than 100,000 bytes (APP_MAX_UPLOAD_BYTES)"
    assert err.splitlines()[:2] == [f"{folder}/large.png: {said}", f"/dev/zero: {said}"]


def test_json_is_what_the_service_answers(folder, capsys):
    """One object a line, with the name; a failure has its reason and its code in place of an answer."""
    assert run("--json", "--top-k", 2, folder / "a.png", folder / "notes.txt", folder / "none.png") == 1
    good, bad, missing = map(json.loads, capsys.readouterr().out.splitlines())
    assert good["image"] == f"{folder}/a.png"
    assert (good["label"], len(good["predictions"]), good["model"]) == ("red", 2, {"name": "tiny", "version": 1})
    assert bad == {"image": f"{folder}/notes.txt", "error": bad["error"], "code": "unsupported_image"}
    assert missing["code"] == "unreadable_file"
    assert bad["error"].startswith("the file is not an image")


def test_failures_are_named_and_spoil_no_other(folder, capsys):
    """Exit status 1, each with its reason, and how many there were."""
    (folder / "broken.png").write_bytes(encode()[:60])
    assert run(folder / "none.png", folder / "broken.png", folder / "a.png", folder / "notes.txt") == 1
    out, err = capsys.readouterr()
    assert out == f"{folder}/a.png\tred\t1.00\n"
    lines = err.splitlines()
    assert lines[0] == f"{folder}/none.png: No such file or directory"
    assert "damaged or cut short" in lines[1]
    assert "not an image in a supported format" in lines[2]
    assert lines[3] == "3 of 4 images failed"


def test_a_picture_of_too_many_pixels_names_the_setting(folder, capsys, monkeypatch):
    """Which is whoever asks' own to change here, as the one of bytes is."""
    monkeypatch.setenv("APP_MAX_IMAGE_PIXELS", "100")
    assert run(folder / "a.png") == 1
    assert "at most 100 are decoded" in (said := capsys.readouterr().err)
    assert "APP_MAX_IMAGE_PIXELS" in said


def test_a_failing_model_is_named(monkeypatch, folder, capsys):
    """Not a traceback."""

    def fail(_):
        raise InferenceError("the model failed")

    monkeypatch.setattr(command, "_load_newest", lambda *_: make_model(fail))
    assert run(folder / "a.png") == 1
    assert capsys.readouterr().err == f"{folder}/a.png: the model failed\n"


def test_images_go_in_full_batches(model, tmp_path, monkeypatch):
    """The last one holds what is left."""
    monkeypatch.setenv("APP_MAX_BATCH_SIZE", "4")
    for i in range(10):
        (tmp_path / f"{i}.png").write_bytes(encode())
    assert run(tmp_path) == 0
    assert sorted(model) == [2, 4, 4]


def test_few_images_go_beside_each_other(model, folder, monkeypatch):
    """One worker with all of them would leave the others idle."""
    monkeypatch.setenv("APP_INFERENCE_THREADS", "2")
    (folder / "d.png").write_bytes(encode())
    assert run(folder) == 0
    assert model == [2, 2]


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    with Decoders(2, max_pixels=10**6, max_bytes=MAX_BYTES, timeout_seconds=10) as decoders:
        yield decoders


def test_decoding_goes_on_while_the_model_runs(tmp_path, decoders, monkeypatch):
    """But not without bound."""
    names = [str(tmp_path / f"{i:02}.png") for i in range(40)]
    decoded, held = [], threading.Event()
    for name in names:
        Path(name).write_bytes(encode())

    def hold(images):
        held.wait(10)
        return tell_colours(images)

    def count(data, size, decode=decoders.decode_blocking):
        decoded.append(data)
        return decode(data, size)

    monkeypatch.setattr(decoders, "decode_blocking", count)
    outcomes = command.classify_files(make_model(hold), names, decoders, batch_size=4, workers=1, max_bytes=MAX_BYTES)
    first = threading.Thread(target=lambda: next(outcomes))
    first.start()
    for _ in range(500):
        if len(decoded) >= 20:
            break
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(decoded) == 20  # of five batches: one held, one to run next, three decoded by then
    held.set()
    first.join()
    assert [outcome.name for batch in outcomes for outcome in batch] == names[4:]
    assert len(decoded) == 40


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required"), (["--top-k", "0", "x"], "no positive number"), (["--top-k", 5000 * "9", "x"], "9 digits"),
        (["--top-k", "4", "{folder}/a.png"], "3 classes"), ([""], "name is empty"), (["-", "-"], "only be read once"),
    ],
)  # fmt: skip
def test_what_can_not_be_done_is_said(folder, capsys, arguments, said):
    """Exit status 2, before any work."""
    try:
        status = run(*(argument.format(folder=folder) for argument in arguments))
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert said in capsys.readouterr().err


def start(*arguments: str, **options: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "app.classify", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=60, **options)


def test_the_program_reads_standard_input_and_a_real_model(exported):
    """From bytes to a line, nothing faked."""
    environment = {**os.environ, "APP_MODEL_DIR": str(exported.parent)}
    done = start("-", input=encode("blue"), env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"-\tblue\t1.00\n", b"")


@pytest.mark.parametrize(
    ("redirection", "status", "out", "said"),
    [
        ("<&-", 1, "", "-: it is closed\n"),
        (">/dev/full", 1, "", "python -m app.classify: can't write: No space left on device\n"),
        (">&-", 1, "", "python -m app.classify: can't write: standard output is closed\n"),
        ("2>&-", 0, "-\tblue\t1.00\n", ""),
        ("/nowhere 2>&-", 1, "-\tblue\t1.00\n", ""),
        ("/nowhere 2>/dev/full", 1, "-\tblue\t1.00\n", ""),
    ],
)
def test_closed_and_full_streams_are_one_line(exported, redirection, status, out, said):
    """Not a traceback; standard output has no errors, and a GIF, which a decoder process decodes, is classified."""
    picture = encode("blue", kind="GIF")
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m app.classify - {redirection}"], cwd=ROOT, input=picture,
        env={**os.environ, "APP_MODEL_DIR": str(exported.parent)}, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (status, out, said)


def test_letters_that_the_output_has_not_are_escapes(exported, folder):
    """The other files are classified."""
    (folder / "a.png").rename(folder / "é.png")
    environment = {**os.environ, "APP_MODEL_DIR": str(exported.parent), "PYTHONIOENCODING": "ascii"}
    done = start(str(folder), env=environment)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3)
    assert rb"/\xe9.png" in done.stdout


def test_ctrl_c_ends_it_while_it_reads(exported):
    """Standard input that never ends would keep its thread, and the program, for ever."""
    environment = {**os.environ, "APP_MODEL_DIR": str(exported.parent)}
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-m", "app.classify", "-"], cwd=ROOT, env=environment, **pipe) as program:
        time.sleep(3)  # by now it reads
        program.send_signal(signal.SIGINT)
        assert program.wait(5) == -signal.SIGINT
        assert (program.stdout.read(), program.stderr.read()) == (b"", b"")


def test_the_program_without_a_model_says_so(tmp_path):
    """Exit status 2 and the reason."""
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
    """The variable and what is wrong with it, as the service says it."""
    monkeypatch.setenv(name, value)
    assert run(folder / "a.png") == 2
    assert capsys.readouterr().err == f"python -m app.classify: {said}\n"


def test_a_folder_shows_its_progress_on_a_terminal(folder, capsys, monkeypatch):
    """Only there: in a file or a pipe it would be noise."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    run(folder)
    assert "3/3" in capsys.readouterr().err
    run(folder / "a.png")
    assert capsys.readouterr().err == ""


def test_the_pixels_are_those_of_the_service(folder, decoders):
    """Decoded to the model's size by the same code."""
    [[outcome]] = command.classify_files(
        make_model(), [str(folder / "a.png")], decoders, batch_size=1, workers=1, max_bytes=MAX_BYTES
    )
    np.testing.assert_array_equal(outcome.result.image, np.full((8, 6, 3), (255, 0, 0), dtype=np.uint8))


@pytest.mark.usefixtures("familiar")
def test_an_unfamiliar_image_is_marked(folder, capsys):
    """In a last column; in JSON each image has its typicality."""
    (folder / "black.png").write_bytes(encode("black"))
    assert run("--top-k", 2, folder / "black.png", folder / "a.png") == 0
    assert [line.split("\t")[5:] for line in capsys.readouterr().out.splitlines()] == [["unfamiliar"], []]
    assert run("--json", folder / "black.png", folder / "a.png") == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["typicality"] for answer in answers] == [0, 0.333333]


def test_json_has_no_typicality_if_the_version_has_none(folder, capsys):
    """Absent, not null, as in the service's answers."""
    assert run("--json", folder / "a.png") == 0
    assert "typicality" not in json.loads(capsys.readouterr().out)
