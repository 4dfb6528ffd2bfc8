"""Behaviour of training.image_folder."""

import pytest

from tests.training.images import CLASSES, draw_split, write_folder
from training.failures import DataError
from training.image_folder import find_images


def count(files):
    return [sum(file.label == label for file in files) for label in range(len(CLASSES))]


@pytest.mark.parametrize(
    ("splits", "counts"),
    [
        (["train", "test"], [1, 0, 1]),
        (["Training", "TESTING"], [1, 0, 1]),
        (["train", "validation", "test"], [1, 1, 1]),
        (["train", "valid", "test"], [1, 1, 1]),
        (["train", "val"], [1, 0, 1]),
        (["train"], [1, 0, 0]),
        ([""], [1, 0, 0]),
    ],
)
def test_layouts_are_understood(tmp_path, splits, counts):
    """Splits with usual names, or none. Without test images, validation images are the test images."""
    for split in splits:
        write_folder(tmp_path / split, draw_split(1, 0), "png")
    found = find_images(tmp_path)
    assert found.class_names == CLASSES
    assert [count(files) for files in (found.train, found.validation, found.test)] == [[n] * 3 for n in counts]
    assert all(str(tmp_path / split) in found.layout for split in splits)


def test_a_class_may_have_the_name_of_a_split(tmp_path):
    """Its folder contains images instead of classes."""
    for name in ("car", "plane", "train"):
        write_folder(tmp_path / name, draw_split(1, 0), "png")
        for path in (tmp_path / name).glob("*/*"):
            path.rename(tmp_path / name / f"{path.parent.name}.png")
            path.parent.rmdir()
    assert find_images(tmp_path).class_names == ("car", "plane", "train")


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (["test/a", "test/b"], "has test/ and no train/; expected train/<class>"),
        (["train/a", "train/b", "val/a", "valid/b"], "val/ and valid/, which both mean the validation images"),
        (["train", "test"], "has no class folders in it"),
        (["photos/a", "photos/b"], "has 1 class folder, and at least two are needed; did you mean .*photos"),
        (["train/a", "train/b", "test/a", "test/c"], "test has no b; .*train has no c|train has no c; .*test has no b"),
    ],
)
def test_an_unknown_layout_is_refused(tmp_path, folders, words):
    """The error names the folders found and the expected layout."""
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.png").touch()
    with pytest.raises(DataError, match=words):
        find_images(tmp_path)


def test_accents_may_be_composed_or_decomposed(tmp_path):
    """Such as those of macOS. Both forms are the same class, with the composed name."""
    for split, name in (
        ("train", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"),
        ("test", "cafe\N{COMBINING ACUTE ACCENT}"),
    ):
        for folder in (name, "tea"):
            (tmp_path / split / folder).mkdir(parents=True)
            (tmp_path / split / folder / "1.png").touch()
    assert find_images(tmp_path).class_names == ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "tea")


def test_skipped_files_are_counted(tmp_path):
    """Files of operating systems, other suffixes, and subfolders."""
    write_folder(tmp_path / "train", draw_split(1, 0), "png")
    first = tmp_path / "train" / CLASSES[0]
    for name in ("__MACOSX", "train/@eaDir", "train/.net", f"train/{CLASSES[0]}/.ipynb_checkpoints", "labels"):
        (tmp_path / name).mkdir()
    (first / "more").mkdir()
    for name in ("Thumbs.db", "._0000.png", "a.mov", "b.MOV", "more/1.png", "more/2.png", "../README.txt"):
        (first / name).touch()
    found = find_images(tmp_path)
    assert found.class_names == CLASSES
    assert count(found.train) == [1, 1, 1]
    assert found.skipped == {
        "folder beside train/: labels/": 1,
        "file beside the class folders": 1,
        f"hidden folder, or one of the operating system: {tmp_path / 'train' / '@eaDir'}/": 1,
        f"hidden folder, or one of the operating system: {tmp_path / 'train' / '.net'}/": 1,
        "file or folder of the operating system": 3,
        "file with the unsupported suffix '.mov'": 2,
        f"image in a subfolder of a class, such as {first}/more/": 2,
    }


def test_classes_without_images_are_refused_together(tmp_path):
    """Files that are not images do not count."""
    write_folder(tmp_path, draw_split(1, 0), "png")
    for name in CLASSES[1:]:
        next((tmp_path / name).iterdir()).rename(tmp_path / name / "0.txt")
    with pytest.raises(DataError, match=f"no images in .*{CLASSES[1]}, .*{CLASSES[2]};"):
        find_images(tmp_path)
