"""MiniModel: twelve pre-activation residual units, as the article "ResNets for CIFAR-10" builds it.

It uses Keras's functional API, and knows no data, no optimizer and no normalization of pixels.
"""

import keras
from keras import layers

from training.layers import MOMENTUM, BatchNormalization

STAGES = ((32, 3), (64, 3), (128, 3), (256, 3))
"""(filters, units) of each stage; every stage but the first halves the resolution in its first unit."""
STRIDE = 2 ** (len(STAGES) - 1)
"""The size of images must be a multiple of this."""


def unit(
    x: keras.KerasTensor,
    filters: int,
    *,
    pool: bool = False,
    residual: bool = True,
    momentum: float = MOMENTUM,
    name: str | None = None,
) -> keras.KerasTensor:
    """Add one pre-activation residual unit: two 3×3 convolutions, each after BatchNormalization and ReLU.

    Args:
        x: (N, H, W, C) feature map.
        filters: channels of the output; must equal C unless `pool` is set.
        pool: halve the resolution; the shortcut is then a strided 1×1 projection of the *unpooled* input.
        residual: add the shortcut; without it the unit is the article's "plain" one.
        momentum: of BatchNormalization's averages.
        name: of the layer that gives the output.

    Returns:
        (N, H, W, filters), or (N, H/2, W/2, filters) with `pool`.
    """
    shortcut = x
    if pool:
        x = layers.MaxPooling2D(2)(x)
        if residual:
            shortcut = layers.Conv2D(filters, 1, strides=2, padding="same")(shortcut)
    for is_last in (False, True):
        x = layers.Activation("relu")(BatchNormalization(momentum=momentum)(x))
        x = layers.Conv2D(filters, 3, padding="same", name=name if is_last and not residual else None)(x)
    return layers.Add(name=name)([shortcut, x]) if residual else x


def mini_model(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    *,
    residual: bool = True,
    dropout: float = 0.25,
    momentum: float = MOMENTUM,
) -> keras.Model:
    """Build MiniModel; for (32, 32, 3) and 10 classes it has 4,374,538 parameters.

    Args:
        input_shape: (H, W, channels) of normalized images, H and W equal and a multiple of `STRIDE`. The weights have
            the same shapes for every size, because features are averaged over the whole image.
        num_classes: width of the softmax.
        residual: False gives the plain network, without shortcuts.
        dropout: share of features dropped before the classifier while training.
        momentum: of BatchNormalization's averages, which only training updates.

    Returns:
        A model (N, H, W, channels) float32 → (N, num_classes) float32 probabilities. The layer "head"
        returns the logits, "features" the features that they are computed from, and "stage_1", "stage_2" … the feature
        map at the end of each stage.
    """
    inputs = keras.Input(input_shape, name="images")
    x = layers.Conv2D(STAGES[0][0], 3, padding="same", name="stem")(inputs)
    for stage, (filters, units) in enumerate(STAGES):
        for index in range(units):
            name = f"stage_{stage + 1}" if index == units - 1 else None
            x = unit(x, filters, pool=stage > 0 and index == 0, residual=residual, momentum=momentum, name=name)
    x = layers.Activation("relu")(BatchNormalization(momentum=momentum)(x))
    x = layers.Dropout(dropout)(x)
    x = layers.Flatten(name="features")(layers.AveragePooling2D(x.shape[1])(x))  # over the whole image
    # Probabilities stay in float32 under mixed precision: bfloat16 has too few digits for a loss.
    logits = layers.Dense(num_classes, dtype="float32", name="head")(x)
    return keras.Model(inputs, layers.Softmax(dtype="float32", name="probabilities")(logits), name="minimodel")


def build_in_float32(size: int, num_classes: int, *, residual: bool, dropout: float = 0.0) -> keras.Model:
    """Build MiniModel for images of `size` pixels in float32, whatever the policy for training is."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        return mini_model((size, size, 3), num_classes, residual=residual, dropout=dropout)
    finally:
        keras.config.set_dtype_policy(policy)
