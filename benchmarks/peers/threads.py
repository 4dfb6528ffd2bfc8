"""FastAPI and the SavedModel's signature, each request in a thread of FastAPI's pool."""

import os
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, UploadFile

from benchmarks.peers.artifact import decode, describe, load

run_model = load()
app = FastAPI()


@app.post("/predict")
def predict(file: UploadFile) -> dict[str, Any]:
    """Classify one image."""
    return describe(run_model(decode(file.file.read())[np.newaxis])[0])


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning")
