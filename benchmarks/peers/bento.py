"""BentoML: `bentoml serve`, with adaptive batching of the model."""

from typing import Any

import bentoml
import numpy as np
from PIL.Image import Image

from benchmarks.peers.artifact import MAX_BATCH_SIZE, SIZE, describe, load


@bentoml.service(logging={"access": {"enabled": False}})
class Classify:
    """The model behind `/predict`."""

    def __init__(self) -> None:
        self.run_model = load()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH_SIZE, max_latency_ms=1000)
    def predict(self, file: list[Image]) -> list[dict[str, Any]]:
        """Classify the images of a batch."""
        images = [np.asarray(image.convert("RGB").resize(SIZE)) for image in file]
        return [describe(row) for row in self.run_model(np.stack(images))]
