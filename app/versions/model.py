"""A model version in memory: its metadata, the runtime that runs it, and the scores that it gives."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.contract import ModelMetadata
from app.errors import InferenceError
from app.runtime.load import Images, Probabilities, Runtime


class Scores(NamedTuple):
    """The probabilities that one model gives for one image."""

    probabilities: NDArray[np.float32]  # (classes,)
    model: "Model"
    image: NDArray[np.uint8]  # (H, W, 3): the pixels that the model received

    def rank(self, top_k: int) -> list[tuple[str, float]]:
        """Return the `top_k` most probable classes with their probabilities; of equals, the first class first."""
        names = self.model.metadata.class_names
        order = np.argsort(-self.probabilities, kind="stable")[:top_k]
        return [(names[index], float(self.probabilities[index])) for index in order]


@dataclass(frozen=True, eq=False)
class Model:
    """A version that a runtime has loaded."""

    metadata: ModelMetadata
    runtime: Runtime
    folder: Path | None = None  # None for a model without files

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the model's input, in pixels."""
        height, width, _ = self.metadata.input.shape
        return height, width

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.metadata.class_names)

    def predict(self, images: Images, *, alone: bool = False) -> Probabilities:
        """Run the model on `images` (N, H, W, 3) uint8; returns (N, classes) float32.

        Set `alone` if no other batch runs or waits: the model then uses all threads, for the lowest latency.

        Raises:
            InferenceError: the runtime gave something other than N rows of probabilities.
        """
        run = (alone and self.runtime.predict_alone) or self.runtime.predict
        probabilities = run(images)
        if probabilities.shape != (len(images), self.num_classes):
            raise InferenceError(f"{len(images)} images gave probabilities of shape {probabilities.shape}")
        # NaN fails both comparisons; the margin allows for sums rounded in low precision.
        if not ((probabilities >= 0) & (probabilities <= 1 + 1e-3)).all():
            raise InferenceError("the model gave numbers that are not probabilities")
        return probabilities
