"""Behaviour of app.versions.model."""

from dataclasses import replace

import numpy as np
import pytest

from app.errors import InferenceError
from app.versions.model import Scores
from tests.app.fakes import INPUT, make_model, paint, tell_colours


@pytest.mark.parametrize("wrong", [np.nan, -0.5, 1.5])
def test_invalid_probabilities_are_an_inference_error(wrong):
    """Clients never get them."""
    model = make_model(lambda images: np.full((len(images), 3), wrong, dtype=np.float32))
    with pytest.raises(InferenceError, match="invalid probabilities"):
        model.predict(np.zeros((2, *INPUT.shape), dtype=np.uint8))


@pytest.mark.parametrize("count", [10, 1000])
def test_ranks_are_those_of_a_stable_sort(count):
    """The most probable classes come first, and equal ones in class order."""
    probabilities = np.random.default_rng(0).integers(0, 5, count).astype(np.float32) / count
    names = tuple(f"class {index}" for index in range(count))
    model = make_model()
    model = replace(model, metadata=model.metadata.model_copy(update={"class_names": names}))
    ranked = Scores(probabilities, model, np.zeros(INPUT.shape, dtype=np.uint8)).rank(7)
    order = np.argsort(-probabilities, kind="stable")[:7]
    assert ranked == [(names[index], float(probabilities[index])) for index in order]


def test_missing_rows_are_an_inference_error():
    """Nothing says whose row is missing."""
    model = make_model(lambda images: tell_colours(images)[1:])
    with pytest.raises(InferenceError, match=r"probabilities \(\d"):
        model.predict(np.zeros((2, *INPUT.shape), dtype=np.uint8))


@pytest.mark.parametrize(("typicality", "unfamiliar"), [(0.0, True), (0.009, True), (0.011, False), (1.0, False)])
def test_an_image_below_the_threshold_is_unfamiliar(typicality, unfamiliar):
    """One validation image in a hundred is below it."""
    [scores] = make_model(typicality=lambda _: np.float32([typicality])).score(paint("red"))
    assert scores.is_unfamiliar == unfamiliar
