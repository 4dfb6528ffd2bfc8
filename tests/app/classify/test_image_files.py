"""Behaviour of app.classify.image_files: which files are classified."""

import errno
import json
import os
from pathlib import Path

import pytest

from tests.app.classify.program import run

pytestmark = pytest.mark.usefixtures("model")


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


def test_files_larger_than_an_upload_may_be_are_refused(folder, capsys, monkeypatch):
    """Whatever has no size, too: it may never end."""
    monkeypatch.setenv("APP_MAX_UPLOAD_BYTES", "100000")
    (folder / "large.png").write_bytes(bytes(100_001))
    assert run(folder / "large.png", "/dev/zero", folder / "a.png") == 1
    out, err = capsys.readouterr()
    assert out == f"{folder}/a.png\tred\t1.00\n"
    said = "it has more than 100,000 bytes (APP_MAX_UPLOAD_BYTES)"
    assert err.splitlines()[:2] == [f"{folder}/large.png: {said}", f"/dev/zero: {said}"]


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
