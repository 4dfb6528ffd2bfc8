"""A loaded version: its metadata, the runtime that runs it, and its scores."""

from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.contract import ModelMetadata
from app.errors import InferenceError
from app.runtime.load import Answers, Images, Runtime

UNFAMILIAR = 0.01
"""One validation image in a hundred has a typicality below this."""


class Scores(NamedTuple):
    """A model's output for one image."""

    probabilities: NDArray[np.float32]  # (classes,)
    model: "Model"
    image: NDArray[np.uint8]  # (H, W, 3): the pixels that the model received
    typicality: float | None = None  # 0 to 1; None if the version does not measure it

    @property
    def is_unfamiliar(self) -> bool:
        """Whether the image looks so unlike the training images that it may show none of the classes."""
        return self.typicality is not None and self.typicality < UNFAMILIAR

    def rank(self, top_k: int) -> list[tuple[str, float]]:
        """Return the `top_k` most probable classes and their probabilities; ties are in class order."""
        names = self.model.metadata.class_names
        # `sorted` is stable, also in reverse, and takes a tenth of NumPy's time on ten classes.
        return sorted(zip(names, self.probabilities.tolist(), strict=True), key=itemgetter(1), reverse=True)[:top_k]


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

    def predict(self, images: Images, *, alone: bool = False) -> Answers:
        """Run the model on `images` (N, H, W, 3) uint8.

        Set `alone` if no other batch runs or waits: the model then uses all threads, for the lowest latency.

        Raises:
            InferenceError: the runtime did not return N rows of probabilities and, if the version has it, N values of
                typicality.
        """
        run = (alone and self.runtime.predict_alone) or self.runtime.predict
        answers = run(images)
        probabilities, typicality = answers
        if probabilities.shape != (len(images), self.num_classes):
            raise InferenceError(f"the model returned probabilities {probabilities.shape} for {len(images)} images")
        # NaN fails both comparisons; the margin allows for sums rounded in low precision.
        if not ((probabilities >= 0) & (probabilities <= 1 + 1e-3)).all():
            raise InferenceError("the model returned invalid probabilities")
        if typicality is not None and not (
            typicality.shape == (len(images),) and ((typicality >= 0) & (typicality <= 1 + 1e-3)).all()
        ):
            raise InferenceError("the model returned invalid typicality")
        return answers

    def score(self, images: Images, *, alone: bool = False) -> list[Scores]:
        """Run the model like `predict`; return the scores of each image."""
        probabilities, typicality = self.predict(images, alone=alone)
        shares = [None] * len(images) if typicality is None else typicality.tolist()
        return [
            Scores(row, self, image, share) for row, image, share in zip(probabilities, images, shares, strict=True)
        ]
