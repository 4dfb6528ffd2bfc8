"""LitServe, with batching; its worker process decodes, runs the model and encodes the answer."""

import os
from typing import Any

import litserve
import numpy as np
from fastapi import Request
from numpy.typing import NDArray

from benchmarks.peers.artifact import MAX_BATCH_SIZE, Images, Probabilities, decode, describe, load


class Classify(litserve.LitAPI):
    """The model behind `/predict`."""

    def setup(self, device: str) -> None:  # noqa: ARG002 -- LitServe's signature
        """Load the model."""
        self.run_model = load()

    def decode_request(self, request: Request) -> NDArray[np.uint8]:
        """Decode the form's file."""
        form: Any = request  # LitServe has read it
        return decode(form["file"].file.read())

    def batch(self, inputs: list[NDArray[np.uint8]]) -> Images:
        """Stack the images of a batch."""
        return np.stack(inputs)

    def predict(self, x: Images) -> Probabilities:
        """Run the model."""
        return self.run_model(x)

    def unbatch(self, output: Probabilities) -> list[NDArray[np.float32]]:
        """Split the results of a batch."""
        return list(output)

    def encode_response(self, output: NDArray[np.float32]) -> dict[str, Any]:
        """Return the answer."""
        return describe(output)


if __name__ == "__main__":
    api = Classify(max_batch_size=MAX_BATCH_SIZE, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", generate_client_file=False)
