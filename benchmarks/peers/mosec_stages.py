"""mosec: its Rust front takes the raw body, one process decodes, another runs the model on batches."""

from typing import Any

import mosec
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.model import MAX_BATCH_SIZE, decode, describe, load


class Decode(mosec.Worker):
    """From the body to an image."""

    def deserialize(self, data: bytes) -> bytes:
        """Take the body as it is."""
        return data

    def forward(self, data: bytes) -> NDArray[np.uint8]:
        """Decode it."""
        return decode(data)


class Classify(mosec.Worker):
    """From images to replies."""

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
