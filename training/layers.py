"""BatchNormalization that trains through TensorFlow's fused kernel."""

from typing import Any

import keras
import tensorflow as tf

MOMENTUM = 0.99
"""How much of its averages a step keeps, in a run of a thousand steps or more: Keras's own."""


def choose_momentum(total_steps: int, ema: float = 0.0) -> float:
    """Return how much of the averages a step of a run of `total_steps` steps keeps.

    They begin at 0 and 1, which no image had part in. A short run keeps less of them, or it would end with that: after
    48 steps at Keras's momentum it makes up 62 % of them.

    Averaged weights, of which each step keeps `ema`, need averages over the same steps.
    """
    return min(ema or MOMENTUM, max(0.5, 1 - 10 / total_steps))


class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's BatchNormalization over the last axis, its training step in one fused op.

    Keras 3 composes it from unfused float32 ops, which makes a training step on a CPU longer.
    At inference it is Keras's own layer, so exports are unchanged.
    The moving variance is the unbiased estimate (n / (n - 1)), as in Keras 2.

    On several devices it is Keras's own layer throughout, with the statistics of the whole batch: each device by itself
    would see a share of it, and the same recipe would fit another network on two GPUs than on one.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"synchronized": True} | kwargs)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:  # noqa: FBT001 - Keras's
        """Normalise `inputs`, (N, H, W, C); while training with the batch's statistics, which move the averages."""
        several = tf.distribute.get_strategy().num_replicas_in_sync > 1
        if several or not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        # The gradient of the fused op takes all its outputs, so it is called raw.
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=self.moving_mean,
            variance=self.moving_variance,
            epsilon=self.epsilon,
            exponential_avg_factor=1.0,
            is_training=True,
        )
        keep = self.momentum
        self.moving_mean.assign(self.moving_mean * keep + mean * (1 - keep))
        self.moving_variance.assign(self.moving_variance * keep + variance * (1 - keep))
        return outputs
