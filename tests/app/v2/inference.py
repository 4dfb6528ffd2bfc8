"""Requests of the Open Inference Protocol, written by hand."""

import json

import numpy as np
from fastapi.testclient import TestClient

from tests.app.fakes import paint


def write_request(images: np.ndarray, **changes: object) -> dict:
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(images.shape), "data": images.ravel().tolist()}
    return {"inputs": [tensor | changes]}


def infer(client: TestClient, body: object, **headers: str):
    content = body if isinstance(body, bytes) else json.dumps(body)
    return client.post("/v2/models/tiny/infer", content=content, headers=headers)


ONE = write_request(paint("red"))
