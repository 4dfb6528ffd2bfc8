"""The image files that benchmarks send."""

import base64
import io
import json

import numpy as np
import pytest
from fastapi import FastAPI, UploadFile
from fastapi.testclient import TestClient
from PIL import Image

from app.runtime.load import load_runtime
from app.versions.verify import load_model
from benchmarks.pictures import MEDIUM, SMALL, encode_body, find_version, make_known, make_pictures


@pytest.mark.parametrize(
    ("kind", "media_type", "bounds"), [(SMALL, "image/png", (1e3, 4e3)), (MEDIUM, "image/jpeg", (3e4, 1e5))]
)
def test_images_have_the_dimensions_and_file_sizes_of_real_ones(kind, media_type, bounds):
    """So that decoding takes as long."""
    pictures = make_pictures(kind)
    assert len(set(pictures)) == len(pictures) > 1
    for picture in pictures:
        assert Image.open(io.BytesIO(picture)).size == kind[1]
        assert bounds[0] < len(picture) < bounds[1]
        assert encode_body(picture, "raw") == (media_type, picture)


def test_images_are_reproducible():
    """The noise is seeded."""
    assert make_pictures(MEDIUM) == make_pictures(MEDIUM)


def test_a_form_has_the_unchanged_file():
    """In the field `file`."""
    app = FastAPI()

    @app.post("/")
    async def echo(file: UploadFile) -> dict[str, str]:
        return {"bytes": (await file.read()).hex(), "type": file.content_type}

    picture = make_pictures(SMALL)[0]
    kind, content = encode_body(picture, "form")
    reply = TestClient(app).post("/", content=content, headers={"Content-Type": kind})
    assert reply.json() == {"bytes": picture.hex(), "type": "image/png"}


def test_a_body_of_the_open_inference_protocol_has_the_file_as_base64():
    """In one element of a BYTES tensor."""
    picture = make_pictures(SMALL)[0]
    kind, content = encode_body(picture, "v2")
    [tensor] = json.loads(content)["inputs"]
    assert kind == "application/json"
    assert (tensor["datatype"], tensor["shape"]) == ("BYTES", [1, 1])
    assert base64.b64decode(*tensor["data"], validate=True) == picture


def test_the_shipped_model_classifies_the_known_image():
    """With the label and probability that services are checked with."""
    folder = find_version()
    known = make_known(folder)
    runtime = load_runtime(folder, name="openvino", precision="f32", threads=0)
    model = load_model(folder, load_runtime=lambda *_: runtime, batch_sizes=[1])
    image = np.asarray(Image.open(io.BytesIO(known.data)))
    [row] = model.predict(image[np.newaxis]).probabilities
    assert model.metadata.class_names[row.argmax()] == known.label
    assert row.max() == pytest.approx(known.probability, abs=0.01)
    assert known.probability > 0.5
