"""Behaviour of app.versions.golden: the golden images of the shipped version detect a wrong model, even in int8."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from app.contract import GOLDEN_FILE, ModelMetadata
from app.errors import RefusedVersionError
from app.runtime.load import Answers, Images, Probabilities, Runtime
from app.versions.verify import load_model

[FOLDER] = (Path(__file__).parents[3] / "models" / "minimodel").glob("[0-9]*")

with np.load(FOLDER / GOLDEN_FILE) as file:
    GOLDEN: Probabilities = file["probabilities"]
    TYPICALITY = dict(zip(map(bytes, file["images"]), file["typicality"], strict=True))
    ANSWERS = dict(zip(TYPICALITY, GOLDEN, strict=True))
SHOWN = sorted(set(GOLDEN.argmax(axis=1).tolist()))
CLASSES = GOLDEN.shape[1]


def load(change: Callable[[Probabilities], Probabilities]) -> None:
    """Load the version as if it ran in int8 and gave these golden answers."""

    def predict(images: Images) -> Answers:
        unknown = np.zeros(CLASSES, np.float32)  # the warm-up runs other images
        answers = np.stack([ANSWERS.get(bytes(image), unknown) for image in images])
        return Answers(change(answers), np.array([TYPICALITY.get(bytes(image), 0.5) for image in images], np.float32))

    def make_runtime(_: Path, metadata: ModelMetadata) -> Runtime:
        return Runtime("fake", "int8", metadata.input, metadata.output, predict, predict, metadata.typicality)

    load_model(FOLDER, load_runtime=make_runtime, batch_sizes=[1, 4])


def test_the_golden_answers_pass():
    """They contain most of the labels."""
    load(lambda probabilities: probabilities)
    assert len(SHOWN) > CLASSES / 2


@pytest.mark.parametrize(
    ("first", "second"), [pair for pair in combinations(range(CLASSES), 2) if set(pair) & set(SHOWN)]
)
def test_confused_labels_are_refused(first, second):
    """A graph with its outputs in another order would give them."""
    order = np.arange(CLASSES)
    order[[first, second]] = second, first
    with pytest.raises(RefusedVersionError, match="other probabilities than at export"):
        load(lambda probabilities: probabilities[:, order])


@pytest.mark.parametrize("index", range(len(GOLDEN)))
def test_a_constant_answer_is_refused(index):
    """A graph that ignores its input would give it."""
    with pytest.raises(RefusedVersionError, match="other probabilities than at export"):
        load(lambda probabilities: np.repeat(GOLDEN[[index]], len(probabilities), axis=0))
