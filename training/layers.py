"""BatchNormalization that trains through TensorFlow's fused kernel."""

from typing import Any

import keras
import tensorflow as tf

MOMENTUM = 0.99
"""Keras's default momentum, for runs of a thousand steps or more."""


def choose_momentum(total_steps: int, ema: float = 0.0) -> float:
    """Return the momentum of BatchNormalization's averages for a run of `total_steps` steps.

    The averages start at 0 and 1. A short run needs less momentum to forget these values: after 48 steps with Keras's
    default, they still make up 62 % of the averages. Averaged weights (`ema`) need averages over the same steps.
    """
    return min(ema or MOMENTUM, max(0.5, 1 - 10 / total_steps))


class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's BatchNormalization over the last axis, with one fused op for training.

    Keras 3 composes it from unfused float32 ops, which are slower on a CPU. At inference it is Keras's own layer, so
    exports are unchanged. The moving variance is the unbiased estimate (n / (n - 1)), as in Keras 2.

    On several devices it is Keras's own layer, synchronized over the whole batch, so that a recipe gives the same
    network on two GPUs as on one.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"synchronized": True} | kwargs)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:  # noqa: FBT001 - Keras's
        """Normalize `inputs`, (N, H, W, C). In training, the batch's statistics are used, and update the averages."""
        several = tf.distribute.get_strategy().num_replicas_in_sync > 1
        if several or not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        # The raw op, because its gradient needs all of its outputs.
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
