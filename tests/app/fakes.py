"""A model without files, with its inputs and outputs."""

import hashlib
import io
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image

from app.contract import METADATA_FILE, DataSet, ModelMetadata, TensorSpec, TrainingRun, digest_files
from app.runtime.load import Answers, Images, Probabilities, Runtime
from app.versions.model import Model

# Three classes and 8 by 6 pixels, unlike a real model, so that tests find code that assumes a real one.
CLASS_NAMES = ("red", "green", "blue")
INPUT = TensorSpec(name="images", dtype="uint8", shape=(8, 6, 3))
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
OUTPUT = TensorSpec(name="probabilities", dtype="float32", shape=(3,))
TYPICALITY = TensorSpec(name="typicality", dtype="float32", shape=())
CARD = """# tiny 1

Made by commit `4f0c2d1e9b7a68350c1d2e3f4a5b6c7d8e9f0a1b`.
Tells colours. <script>alert(1)</script> [never](javascript:alert(1))

| class | accuracy |
| --- | ---: |
| red | 100 % |

```
$ a line of code that is longer than any page is wide, since {"it": "goes on"} {"and": "on"} {"and": "on"} {"and": "on"}
```

![curves](curves.png)
"""


def make_metadata(version: int = 1, files: dict[str, str] | None = None) -> ModelMetadata:
    return ModelMetadata(
        name="tiny",
        version=version,
        class_names=CLASS_NAMES,
        input=INPUT,
        output=OUTPUT,
        parameters=9,
        recipe={"epochs": 0},
        training=TrainingRun(recipe="none", command="none", commit="none", hardware="none", precision="none"),
        data=DataSet(name="none", source="none", pixel_encoding="none", train_size=1, validation_size=1, test_size=1),
        metrics={"accuracy": 1.0},
        smoothing=0.0,
        temperature=1.0,
        libraries={},
        commit="none",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        files=files or {"saved_model.pb": hashlib.sha256(b"").hexdigest()},
    )


def tell_colours(images: Images) -> Probabilities:
    """Return each image's mean red, green and blue, scaled to probabilities."""
    means = images.mean(axis=(1, 2), dtype=np.float32) / 255 + 1e-6
    probabilities: Probabilities = (means / means.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


class HeldModel:
    """Returns colours once it is released, and records the sizes of its batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, images: Images) -> Probabilities:
        """Block the caller until the model is released."""
        self.batches.append(len(images))
        self.reached.set()
        assert self.opened.wait(10)
        return tell_colours(images)


def tell_brightness(images: Images) -> NDArray[np.float32]:
    """Return each image's mean brightness as its typicality: 0 for black, 1/3 for a pure red, green or blue."""
    typicality: NDArray[np.float32] = images.mean(axis=(1, 2, 3), dtype=np.float32) / 255
    return typicality


def make_model(
    predict: Callable[[Images], Probabilities] = tell_colours,
    version: int = 1,
    typicality: Callable[[Images], NDArray[np.float32]] | None = None,
) -> Model:
    """Make a model with these functions and no files."""
    metadata = make_metadata(version).model_copy(update={"typicality": TYPICALITY if typicality else None})

    def run(images: Images) -> Answers:
        return Answers(predict(images), typicality(images) if typicality else None)

    return Model(metadata, Runtime("fake", "f32", INPUT, OUTPUT, run, typicality=metadata.typicality))


def encode(colour: str | tuple[int, ...] = "red", size: tuple[int, int] = (40, 30), kind: str = "PNG") -> bytes:
    """Encode an image of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def write_version(folder: Path) -> Path:
    """Write a card and samples like those of a model; return the version's folder."""
    version = folder / "tiny" / "1"
    (version / "card").mkdir(parents=True)
    (version / "card" / "README.md").write_text(CARD)
    (version / "card" / "curves.png").write_bytes(encode("red"))
    samples = version.parent / "samples"
    samples.mkdir()
    for colour in ("red", "blue"):
        (samples / f"{colour}.png").write_bytes(encode(colour, (40, 40)))
    index = [{"file": f"{c}.png", "title": f"Something {c}", "credit": "made here"} for c in ("red", "blue")]
    (samples / "samples.json").write_text(json.dumps(index))
    return version


def wait_until_loaded(client: TestClient) -> None:
    while client.get("/health").json()["status"] == "starting":
        pass


def seal(folder: Path, **changes: object) -> None:
    """Write metadata that match the files in `folder`, with `changes`."""
    (folder / METADATA_FILE).unlink(missing_ok=True)
    metadata = make_metadata(int(folder.name), digest_files(folder)).model_copy(update=changes)
    (folder / METADATA_FILE).write_text(metadata.model_dump_json())


def paint(*colours: str) -> np.ndarray:
    """Make one image of the fake model's size for each colour, (N, 8, 6, 3) uint8."""
    return np.stack([np.full((8, 6, 3), COLOURS[colour], np.uint8) for colour in colours])
