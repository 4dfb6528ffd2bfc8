"""The article's code."""

import numpy as np
import pytest

from benchmarks import article
from tests.training.images import draw_split

# Keras's legacy generator imports SciPy's functions by their old names.
pytestmark = pytest.mark.filterwarnings("ignore:Please import `affine_transform`:DeprecationWarning")


def test_the_network_has_the_articles_parameters():
    """And is compiled as published."""
    model = article.make_model(10)
    assert model.count_params() == 4_374_538
    assert model.optimizer.learning_rate == np.float32(0.001)
    assert (model.loss, model.jit_compile) == ("categorical_crossentropy", False)


def test_batches_never_end():
    """Batches of 128 with one-hot labels; the last of each pass is smaller."""
    split = draw_split(50, seed=0)
    batches = article.make_batches(article.normalize(split)[0], split.labels, 3)
    shapes = [next(batches)[0].shape for _ in range(4)]
    assert shapes == [(128, 32, 32, 3), (22, 32, 32, 3)] * 2
    assert next(batches)[1].sum(axis=1).tolist() == [1] * 128
