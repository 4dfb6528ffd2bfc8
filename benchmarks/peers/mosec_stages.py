"""mosec: a Rust front end reads the raw body, one process decodes, another runs the model on batches."""

from typing import Any

import mosec
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.artifact import MAX_BATCH_SIZE, decode, describe, load


class Decode(mosec.Worker):
    """Decodes bodies to images."""

    def deserialize(self, data: bytes) -> bytes:
        """Return the body unchanged."""
        return data

    def forward(self, data: bytes) -> NDArray[np.uint8]:
        """Decode the body."""
        return decode(data)


class Classify(mosec.Worker):
    """Classifies batches of images."""

    def __init__(self) -> None:
        super().__init__()
        self.run_model = load()

    def forward(self, data: list[NDArray[np.uint8]]) -> list[dict[str, Any]]:
        """Run the model on a batch."""
        return [describe(row) for row in self.run_model(np.stack(data))]


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(Decode)
    server.append_worker(Classify, max_batch_size=MAX_BATCH_SIZE, max_wait_time=1)
    server.run()
