"""Behaviour of training.pipeline."""

from itertools import chain, pairwise

import numpy as np
import pytest

from training.config import Recipe
from training.data import Split
from training.network import mini_model
from training.pipeline import (
    Normalization,
    list_phases,
    make_dataset,
    make_train_dataset,
    measure_normalization,
    steps_per_epoch,
)

PLAIN = Recipe(rotation=0, shift=0, flip=False, batch_size=4, epochs=3)
MANY = 47_500
RAW = Normalization(np.float32(0), np.float32(1 / 255))
# ten images, each filled with its number
NUMBERED = Split(
    np.arange(10, dtype=np.uint8)[:, None, None, None] + np.zeros((10, 32, 32, 3), np.uint8), np.arange(10) % 2
)


def numbers(dataset):
    return [images[:, 0, 0, 0].numpy().round().astype(int).tolist() for images, _ in dataset]


def test_every_epoch_sees_every_image_in_a_new_order():
    """Each group of ten images in the stream is another permutation."""
    stream = list(chain(*numbers(make_train_dataset(NUMBERED, PLAIN, RAW, num_classes=2))))
    epochs = [stream[start : start + 10] for start in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def draw_orders(seed):
    """Return the order of three epochs with as many images as the shipped recipe's, two bytes number each."""
    numbered = np.zeros((MANY, 1, 1, 3), np.uint8)
    numbered[:, 0, 0, 0], numbered[:, 0, 0, 1] = np.divmod(np.arange(MANY), 256)
    recipe = PLAIN.model_copy(update={"batch_size": MANY, "seed": seed})
    dataset = make_train_dataset(Split(numbered, np.zeros(MANY, np.int64)), recipe, RAW, num_classes=1)
    return [images.numpy().round().astype(int)[:, 0, 0] @ (256, 1, 0) for images, _ in dataset]


def correlate_places(order, other):
    return abs(np.corrcoef(np.argsort(order), np.argsort(other))[0, 1])


def test_consecutive_orders_are_unrelated():
    """An image's place in one epoch says nothing about its place in the next."""
    orders = draw_orders(seed=0)
    assert all((np.sort(order) == np.arange(MANY)).all() for order in orders)
    assert max(correlate_places(*pair) for pair in pairwise(orders)) < 0.02


def test_another_seed_gives_other_orders():
    """In every epoch, as different as those of two epochs."""
    assert max(map(correlate_places, draw_orders(seed=0), draw_orders(seed=1))) < 0.02


def test_another_seed_gives_other_changes():
    """Identical images show the augmentation, whatever their order."""
    alike = Split(np.tile(np.arange(32, dtype=np.uint8)[:, None], (4, 32, 1, 3)), np.zeros(4, np.int64))
    (one, *_), (other, *_) = (
        [images.numpy() for images, _ in make_train_dataset(alike, recipe, RAW, num_classes=1)]
        for recipe in (Recipe(batch_size=4, epochs=1, seed=seed) for seed in (0, 1))
    )
    assert (one != other).any()


def test_an_epoch_has_the_articles_number_of_steps():
    """ceil(images / batch size), and every batch is full."""
    assert steps_per_epoch(10, PLAIN) == 3
    batches = numbers(make_train_dataset(NUMBERED, PLAIN, RAW, num_classes=2))
    assert [len(batch) for batch in batches] == [4] * 9


def test_a_resumed_stream_equals_the_rest_of_the_whole_one():
    """From epoch 2 it has the same batches as an uninterrupted run, including augmentation."""
    recipe = Recipe(batch_size=4, epochs=3)
    whole = [images.numpy() for images, _ in make_train_dataset(NUMBERED, recipe, RAW, num_classes=2)]
    rest = [images.numpy() for images, _ in make_train_dataset(NUMBERED, recipe, RAW, num_classes=2, start_epoch=2)]
    np.testing.assert_array_equal(whole[6:], rest)


def test_alternating_flip_mirrors_each_image_every_other_epoch():
    """Which epochs, even or odd, is random for each image."""
    ramps = np.arange(10)[:, None] * 8 + np.arange(32)
    images = np.broadcast_to(ramps[:, None, :, None], (10, 32, 32, 3)).astype(np.uint8)
    recipe = PLAIN.model_copy(update={"flip": True, "alternating_flip": True, "batch_size": 10, "epochs": 4})
    dataset = make_train_dataset(Split(images, np.arange(10)), recipe, RAW, num_classes=10)
    epochs = []
    for batch, labels in dataset:
        mirrored = (batch[:, 0, 0, 0] > batch[:, 0, 31, 0]).numpy()
        epochs.append(mirrored[np.argsort(labels.numpy().argmax(1))])
    first, second, third, fourth = np.array(epochs)
    assert 0 < first.sum() < 10
    assert (first == third).all()
    assert (second == fourth).all()
    assert (first != second).all()


@pytest.mark.parametrize(("size", "small"), [(32, 24), (48, 32), (64, 48), (96, 72)])
def test_small_images_fit_the_network(size, small):
    """Their size is a multiple of 8, because the network halves it three times."""
    recipe = PLAIN.model_copy(update={"size": size, "epochs": 2, "low_resolution": 0.5})
    assert list_phases(recipe) == [(small, range(1)), (size, range(1, 2))]
    assert mini_model((small, small, 3)).get_layer("stage_4").output.shape[1] == small // 8


def test_the_first_epochs_use_small_images():
    """Each phase has its own stream. Small images are the full-size ones, resized."""
    recipe = PLAIN.model_copy(update={"batch_size": 10, "epochs": 4, "low_resolution": 0.5})
    assert list_phases(recipe) == [(24, range(2)), (32, range(2, 4))]
    ramp = Split(np.tile(np.arange(0, 256, 8, dtype=np.uint8)[:, None], (10, 32, 1, 3)), np.zeros(10, np.int64))
    streams = [list(make_train_dataset(ramp, recipe, RAW, num_classes=1, start_epoch=epoch)) for epoch in (0, 1, 2)]
    shapes = [[images.shape[1:3] for images, _ in stream] for stream in streams]
    assert shapes == [[(24, 24)] * 2, [(24, 24)], [(32, 32)] * 2]
    small, whole = streams[0][0][0].numpy(), streams[2][0][0].numpy()
    np.testing.assert_allclose(np.diff(small[:, :, 4:20], axis=2).mean(), 8 * 32 / 24, rtol=0.01)
    np.testing.assert_allclose(small.mean(), whole.mean(), rtol=0.01)


def test_labels_follow_their_images():
    """Shuffling keeps image and label together."""
    for images, labels in make_train_dataset(NUMBERED, PLAIN, RAW, num_classes=2):
        np.testing.assert_array_equal(labels.numpy().argmax(1), images[:, 0, 0, 0].numpy().round() % 2)


@pytest.mark.parametrize("kind", ["position", "channel"])
def test_normalized_training_images_have_mean_0_and_deviation_1(kind):
    """By pixel position or by channel, over the training set."""
    images = np.random.default_rng(0).integers(20, 220, (500, 32, 32, 3)).astype(np.uint8)
    normal = measure_normalization(images, kind)(images).numpy()
    axes = 0 if kind == "position" else (0, 1, 2)
    assert abs(normal.mean()) < 0.01
    np.testing.assert_allclose(normal.std(axes), 1, atol=0.01)


@pytest.mark.parametrize("kind", ["position", "channel"])
def test_statistics_do_not_depend_on_the_blocks(kind, monkeypatch):
    """Exactly, even if the last block is not full."""
    monkeypatch.setattr("training.pipeline.BLOCK", 7)
    images = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3)).astype(np.uint8)
    normalization = measure_normalization(images, kind)
    axes = 0 if kind == "position" else (0, 1, 2)
    deviation = images.std(axes, dtype=np.float64) / 255 + 1e-3
    np.testing.assert_array_equal(normalization.deviation, deviation.astype(np.float32))
    mean = images.mean(axes if kind == "channel" else None) / 255
    np.testing.assert_array_equal(normalization.mean, mean.astype(np.float32))


def test_the_articles_normalization_has_one_mean_and_a_deviation_per_position():
    """A constant pixel does not divide by zero."""
    normalization = measure_normalization(np.full((4, 32, 32, 3), 51, np.uint8), "position")
    assert normalization.mean == pytest.approx(0.2)
    assert normalization.deviation.shape == (32, 32, 3)
    assert np.isfinite(normalization(NUMBERED.images)).all()


def test_validation_batches_are_in_order_and_unchanged():
    """Not shuffled, augmented or cut."""
    batches = numbers(make_dataset(NUMBERED, RAW, num_classes=2, batch_size=4))
    assert list(chain(*batches)) == list(range(10))
