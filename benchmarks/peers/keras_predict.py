"""FastAPI and `model.predict`, as in tutorials; Keras 3 loads a SavedModel as a TFSMLayer."""

import os
from typing import Any

import keras
import numpy as np
import uvicorn
from fastapi import FastAPI, UploadFile

from benchmarks.peers.artifact import FOLDER, SIZE, decode, describe

layer = keras.layers.TFSMLayer(FOLDER, call_endpoint="serving_default")
model = keras.Sequential([keras.Input((*SIZE, 3), dtype="uint8"), layer])
app = FastAPI()


@app.post("/predict")
async def predict(file: UploadFile) -> dict[str, Any]:
    """Classify one image."""
    image = decode(await file.read())
    return describe(model.predict(image[np.newaxis], verbose=0)["probabilities"][0])


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning")
