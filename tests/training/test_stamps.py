"""Behaviour of training.stamps: Tux Paint's photographs, sorted into folders."""

import numpy as np
from PIL import Image

from app.contract import METADATA_FILE, ModelMetadata
from benchmarks.pictures import find_version
from training import stamps

LISTED = [line.split() for line in stamps.LIST.read_text(encoding="utf-8").splitlines()]


def test_pictures_are_linked_into_their_folders(tmp_path):
    """Only those in the list. Running it again does no harm."""
    source, target = tmp_path / "source", tmp_path / "target"
    for name in ("animals/birds/cartoon", *(name for _, name in LISTED)):
        picture = (source / name).with_suffix(".png")
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.touch()
    for _ in range(2):
        assert stamps.main([str(source), str(target)]) == 0
    linked = {path.relative_to(target) for path in target.rglob("*.png") if path.is_symlink()}
    assert len(linked) == len(LISTED)
    assert {str(path.parent) for path in linked} == {folder for folder, _ in LISTED}
    assert (target / "classes" / "frog" / "animals-amphibians-frog.png").resolve() == source / (
        "animals/amphibians/frog.png"
    )
    assert len(list((target / "textures").iterdir())) == 8 * stamps.TEXTURES


def test_each_picture_is_in_one_folder():
    """And the class folders have the names of the shipped model's classes."""
    assert len({name for _, name in LISTED}) == len(LISTED)
    metadata = ModelMetadata.model_validate_json((find_version() / METADATA_FILE).read_bytes())
    folders = {folder for folder, _ in LISTED}
    assert folders - {"things", "animals"} <= {f"classes/{name}" for name in metadata.class_names}


def test_missing_pictures_are_one_line(tmp_path, capsys):
    """With exit status 2."""
    assert stamps.main([str(tmp_path), str(tmp_path / "target")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{len(LISTED)} pictures are missing" in error


def test_textures_are_the_same_every_time():
    """So that figures can be reproduced. No two are equal."""
    first, second = (dict(stamps.draw_textures()) for _ in range(2))
    assert first.keys() == second.keys()
    assert all((pixels == second[name]).all() for name, pixels in first.items())
    assert len({np.asarray(Image.fromarray(pixels).resize((8, 8))).tobytes() for pixels in first.values()}) > 390
