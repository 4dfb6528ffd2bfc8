"""MLServer, with adaptive batching and a worker process for each of two cores.

It speaks the Open Inference Protocol, in JSON: an image is sent as a BYTES tensor in base64. A worker decodes a batch
of images, runs the model, and answers with the tensors `label` and `probability`.
"""

import os
import tempfile

import numpy as np
import uvloop
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import Base64Codec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from benchmarks.peers.artifact import MAX_BATCH_SIZE, decode, describe, load

WORKERS = 2


class Classify(MLModel):
    """The model behind `/v2/models/minimodel/infer`."""

    async def load(self) -> bool:
        """Load the model in a worker."""
        self.run_model = load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Classify the images of a batch."""
        images = [decode(data) for data in Base64Codec.decode_input(payload.inputs[0])]
        answers = [describe(row) for row in self.run_model(np.stack(images))]
        outputs = [
            ResponseOutput(name=name, datatype=kind, shape=[len(answers), 1], data=[answer[name] for answer in answers])
            for name, kind in (("label", "BYTES"), ("probability", "FP32"))
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)


async def serve() -> None:
    """Serve until a signal."""
    folder = tempfile.gettempdir()
    settings = Settings(
        debug=False,  # no access log
        host="127.0.0.1",
        http_port=int(os.environ["PORT"]),
        grpc_port=0,  # any free ports; nothing asks there
        metrics_port=0,
        metrics_dir=folder,
        environments_dir=folder,
        parallel_workers=WORKERS,
    )
    model = ModelSettings(
        name="minimodel",
        implementation=f"{__spec__.name}.Classify",
        max_batch_size=MAX_BATCH_SIZE,
        max_batch_time=0.001,
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    uvloop.run(serve())
