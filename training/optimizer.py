"""Makes the optimizer of a recipe, with its learning-rate schedule."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from training.config import Recipe
from training.layers import choose_momentum


class Muon(keras.optimizers.Muon):
    """Keras's Muon, extended to convolution kernels. Biases, BatchNormalization and the classifier use Adam.

    Keras's own supports two-dimensional weights only. A kernel (h, w, in, out) is orthogonalized as an (h·w·in, out)
    matrix, as in K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
    """

    def _should_use_adamw(self, variable: keras.Variable) -> bool:
        return len(variable.shape) < 2 or "head" in variable.path  # noqa: PLR2004 - no matrix

    def _muon_update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, lr: tf.Tensor, m: keras.Variable
    ) -> None:
        self.assign(m, ops.add(gradient, m * self.momentum))
        nesterov = ops.add(gradient, self.momentum * m)
        matrix = ops.reshape(nesterov, (-1, variable.shape[-1]))
        update = self.lr_adjust(lr * self.zeropower_via_newtonschulz5(matrix, self.ns_steps))
        self.assign_sub(variable, ops.reshape(update, variable.shape))

    def zeropower_via_newtonschulz5(self, x: tf.Tensor, steps: int) -> tf.Tensor:
        """Orthogonalize a matrix by Keras's iteration with a third of the multiplications.

        Each step multiplies by a polynomial in x·xᵀ, so all products except the last are of small square matrices.
        """
        if x.shape[0] > x.shape[1]:
            return ops.transpose(self.zeropower_via_newtonschulz5(ops.transpose(x), steps))
        x = x / (ops.norm(x) + 1e-7)
        gram, product = x @ ops.transpose(x), None
        for step in range(steps):
            factor = self.muon_a * ops.eye(x.shape[0]) + self.muon_b * gram + self.muon_c * gram @ gram
            product = factor if product is None else factor @ product
            if step < steps - 1:
                gram = factor @ gram @ factor
        return product @ x


def make_optimizer(recipe: Recipe, total_steps: int) -> keras.optimizers.Optimizer:
    """Make the recipe's optimizer, with its schedule over `total_steps` steps.

    Weights called bias, gamma or beta do not decay.
    """
    rate = recipe.learning_rate
    if recipe.schedule == "cosine":
        warmup_steps = min(round(total_steps * recipe.warmup), total_steps - 1)  # leaves one step for the decay
        rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup_steps else rate,
            decay_steps=total_steps - warmup_steps,
            warmup_target=rate if warmup_steps else None,
            warmup_steps=warmup_steps,
        )
    decay = recipe.weight_decay or None
    average: Any = {}
    if recipe.ema:  # over fewer steps in a short run, like BatchNormalization's averages
        average = {"use_ema": True, "ema_momentum": choose_momentum(total_steps, recipe.ema)}
    match recipe.optimizer:
        case "adam":
            optimizer = keras.optimizers.Adam(rate, weight_decay=decay, **average)
        case "sgd":
            optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay, **average)
        case "muon":
            optimizer = Muon(rate, weight_decay=decay, adam_weight_decay=decay, **average)
    if decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
