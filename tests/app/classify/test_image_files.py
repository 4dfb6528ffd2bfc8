"""Behaviour of app.classify.image_files: which files are classified."""

import errno
import json
import os
from pathlib import Path

import pytest

from tests.app.classify.program import run

pytestmark = pytest.mark.usefixtures("model")


def test_a_folder_is_searched_in_order(folder, capsys):
    """With its subfolders. Files without an image's suffix are counted on standard error."""
    (folder / "more" / "IMG_1.MOV").touch()
    assert run(folder) == 0
    out, err = capsys.readouterr()
    assert err == f"{folder}: skipped, without an image suffix: 1 × .mov, 1 × .txt\n"
    names = [line.split("\t")[0] for line in out.splitlines()]
    assert names == [f"{folder}/a.png", f"{folder}/b.JPEG", f"{folder}/more/c.webp"]


def test_files_of_operating_systems_are_skipped(folder, capsys):
    """Silently in a folder. If a shell's `*` names one, a line reports it."""
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


def test_a_hidden_image_is_classified_if_it_is_an_argument(folder, capsys):
    """Only folders skip hidden files."""
    (folder / "a.png").rename(folder / ".a.png")
    assert run(folder / ".a.png") == 0
    assert capsys.readouterr().out == f"{folder}/.a.png\tred\t1.00\n"


def test_folders_and_pipes_are_not_images(folder, capsys):
    """Even if their names end in .png."""
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    assert run(folder / "more", folder) == 0
    names = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [f"{folder}/{name}" for name in ("more/c.webp", "a.png", "b.JPEG", "more/c.webp")]


def test_broken_links_are_reported(folder, capsys):
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
    """Make listing a folder fail, for root too, who ignores permissions."""

    def forbid(folder: Path) -> None:
        def scan(path):
            if str(path) == str(folder):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return scandir(path)

        scandir = os.scandir
        monkeypatch.setattr(os, "scandir", scan)

    return forbid


def test_an_unreadable_folder_is_reported(folder, capsys, forbid):
    """As a subfolder and as an argument."""
    forbid(folder / "more")
    assert run(folder) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err.startswith(f"{folder}/more: Permission denied\n")
    assert run(folder / "more") == 1
    assert capsys.readouterr() == ("", f"{folder}/more: Permission denied\n")


@pytest.mark.parametrize("others", [["a.png"], []])
def test_a_folder_without_images_is_reported(folder, capsys, others):
    """The other arguments are classified, and the exit status is 1."""
    (folder / "more" / "empty").mkdir()
    assert run(folder / "more" / "empty", *(folder / name for name in others)) == 1
    out, err = capsys.readouterr()
    assert out == "".join(f"{folder}/{name}\tred\t1.00\n" for name in others)
    assert err == f"{folder}/more/empty: no image in it\n"


def test_files_above_the_upload_limit_are_refused(folder, capsys, monkeypatch):
    """Devices too, which may never end."""
    monkeypatch.setenv("APP_MAX_UPLOAD_BYTES", "100000")
    (folder / "large.png").write_bytes(bytes(100_001))
    assert run(folder / "large.png", "/dev/zero", folder / "a.png") == 1
    out, err = capsys.readouterr()
    assert out == f"{folder}/a.png\tred\t1.00\n"
    said = "it has more than 100,000 bytes (APP_MAX_UPLOAD_BYTES)"
    assert err.splitlines()[:2] == [f"{folder}/large.png: {said}", f"/dev/zero: {said}"]


def test_control_characters_in_names_are_escaped(folder, capsys):
    """Tabs, newlines and invalid Unicode, so that each image is one line. JSON has the exact name."""
    name = os.fsdecode(os.fsencode(folder) + b"/a\tb\\n\n\xff\xc3\xa9.png")
    (folder / "a.png").rename(name)
    (folder / "b.JPEG").unlink()
    (folder / "more" / "c.webp").write_bytes(b"")
    assert run(folder) == 1
    assert capsys.readouterr().out == rf"{folder}/a\tb\\n\n\xffé.png" + "\tred\t1.00\n"
    assert run("--json", folder) == 1
    line, _ = capsys.readouterr().out.splitlines()
    assert json.loads(line)["image"] == name
