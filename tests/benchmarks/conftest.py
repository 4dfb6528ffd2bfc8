"""Shared by the tests of benchmarks that train."""

from pathlib import Path

import pytest

from tests.training.images import draw_split, write_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder: 20 training images and one test image of each class."""
    folder = tmp_path_factory.mktemp("images")
    write_folder(folder / "train", draw_split(20, seed=0), "png")
    write_folder(folder / "test", draw_split(1, seed=1), "png")
    return folder
