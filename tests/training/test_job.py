"""Which images each step of a job gets. No step before the measurement may get test images."""

import numpy as np
import pytest

import training.job
from tests.training.fitting import SMALL_RUN, shrink_network
from training.__main__ import main
from training.config import RECIPES
from training.data import load_data, split_validation
from training.robustness import ENLARGED_8

STEPS = {
    "measure_normalization": lambda images, *_: [images],
    "train": lambda train, validation, *_, **__: [train.images, validation.images],
    "predict_logits": lambda _network, _normalize, images: [images],
    "fit_calibration": lambda _logits, labels, smoothing: [labels, smoothing],
    "predict_features": lambda _network, _normalize, images: [images],
    "fit_typicality": lambda _features, labels, _held_out: [labels],
    "quantize_model": lambda _folder, images, held_out, *_: [images, held_out],
    "evaluate": lambda _folder, test, *_, **__: [test.images],
}
"""Each step that gets images or labels, and a function that finds them in its arguments."""


@pytest.fixture(scope="module")
def seen(image_folder, tmp_path_factory):
    """Run a job with a tiny network; returns the arrays that each step got."""
    folder = tmp_path_factory.mktemp("splits")
    arrays = {}

    def spy(name, find, step):
        def take(*arguments, **options):
            arrays[name] = find(*arguments, **options)
            return None if name == "quantize_model" else step(*arguments, **options)

        return take

    with pytest.MonkeyPatch.context() as patch:
        shrink_network(patch)
        patch.setattr("training.evaluation.VARIANTS", {ENLARGED_8: lambda images: images})
        for name, find in STEPS.items():
            patch.setattr(training.job, name, spy(name, find, getattr(training.job, name)))
        places = ("--models", f"{folder}/models", "--runs", f"{folder}/runs")
        assert main(["--data", str(image_folder), *places, *SMALL_RUN, "--epochs", "1", "--quantize"]) == 0
    return arrays


def test_each_step_gets_its_own_split(seen, image_folder):
    """Training images for fitting, validation images for calibration, test images for the measurement only."""
    data = load_data(str(image_folder))
    train, validation = split_validation(data.train, 0.25, seed=0)
    expected = {
        "measure_normalization": [train.images],
        "train": [train.images, validation.images],
        "predict_logits": [validation.images],
        "fit_calibration": [validation.labels, RECIPES["fast"].label_smoothing],
        "predict_features": [validation.images],  # the second call; the first gets the training images
        "fit_typicality": [train.labels],
        "quantize_model": [train.images, validation.images],
        "evaluate": [data.test.images],
    }
    assert seen.keys() == expected.keys()
    for step, arrays in expected.items():
        for got, wanted in zip(seen[step], arrays, strict=True):
            np.testing.assert_array_equal(got, wanted, err_msg=step)


def test_the_splits_share_no_image(seen):
    """By their pixels."""
    train, validation = seen["train"]
    (test,) = seen["evaluate"]
    splits = [{image.tobytes() for image in images} for images in (train, validation, test)]
    assert len(set.union(*splits)) == sum(map(len, splits)) == 72
