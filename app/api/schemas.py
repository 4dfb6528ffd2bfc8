"""The schemas of the API's responses, except errors (see `app.http.problems`)."""

from typing import Annotated, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field, with_config
from pydantic.config import JsonDict
from typing_extensions import TypedDict  # Pydantic does not accept that of Python 3.11

from app.errors import UnsupportedImageError
from app.http.problems import KINDS, Problem, make_problem
from app.versions.model import Model, Scores

_MODEL: JsonDict = {"name": "flowers", "version": 3}
_CLASSIFICATION: JsonDict = {
    "label": "daisy",
    "probability": 0.93,
    "typicality": 0.41,
    "predictions": [{"label": "daisy", "probability": 0.93}, {"label": "tulip", "probability": 0.05}],
    "model": _MODEL,
}
# `GET /model` returns the artifact's metadata. This is the example in the API documentation.
METADATA_EXAMPLE: JsonDict = {
    "schema_version": 1,
    **_MODEL,
    "class_names": ["daisy", "tulip"],
    "input": {"name": "images", "dtype": "uint8", "shape": [64, 64, 3]},
    "output": {"name": "probabilities", "dtype": "float32", "shape": [2]},
    "typicality": {"name": "typicality", "dtype": "float32", "shape": []},
    "parameters": 1_200_000,
    "recipe": {"epochs": 20, "batch_size": 128},
    "training": {
        "recipe": "fast",
        "command": "python -m training --data flowers --epochs 20",
        "commit": "4f0c2d1",
        "hardware": "1 GPU: NVIDIA L4",
        "precision": "mixed_bfloat16",
    },
    "data": {
        "name": "flowers",
        "source": "a folder of photographs",
        "pixel_encoding": "JPEG",
        "train_size": 9000,
        "validation_size": 1000,
        "test_size": 2000,
    },
    "metrics": {"accuracy": 0.91},
    "smoothing": 0.1,
    "temperature": 1.2,
    "libraries": {"tensorflow": "2.21.0"},
    "commit": "4f0c2d1",
    "created": "2026-01-01T12:00:00Z",
    "files": {"saved_model.pb": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
}
_UNSUPPORTED = KINDS[UnsupportedImageError]
_PROBLEM: JsonDict = make_problem(_UNSUPPORTED, _UNSUPPORTED.example, None).model_dump(exclude_none=True)
_Share = Annotated[float, Field(ge=0, le=1)]


# A classification is a typed dictionary, because a model would take several times as long to make and write.
class ModelRef(TypedDict):
    """The name and version of a model."""

    name: str
    version: int


class Prediction(TypedDict):
    """A class and its probability."""

    label: str
    probability: Annotated[_Share, Field(description="Calibrated: of many predictions of 0.8, about 80 % are right.")]


@with_config(ConfigDict(json_schema_extra={"examples": [_CLASSIFICATION]}))
class Classification(TypedDict):
    """The most probable class of an image, and the `top_k` most probable ones."""

    label: str
    probability: _Share
    typicality: NotRequired[
        Annotated[
            _Share,
            Field(
                description="Share of the validation images that are no more typical of the training images than "
                "this one. Near 0, the image may show none of the classes. Absent if the version does not measure it."
            ),
        ]
    ]
    predictions: Annotated[
        list[Prediction], Field(description="The `top_k` most probable classes, most probable first.")
    ]
    model: ModelRef


def refer_to(model: Model) -> ModelRef:
    """Return the reference to `model`."""
    return {"name": model.metadata.name, "version": model.metadata.version}


def describe(scores: Scores, top_k: int) -> Classification:
    """Return the `top_k` most probable classes in `scores`."""
    predictions: list[Prediction] = [
        {"label": label, "probability": min(1.0, round(probability, 6))} for label, probability in scores.rank(top_k)
    ]
    reply: Classification = {
        **predictions[0],
        "typicality": min(1.0, round(scores.typicality or 0, 6)),
        "predictions": predictions,
        "model": refer_to(scores.model),
    }
    if scores.typicality is None:
        del reply["typicality"]
    return reply


class BatchReply(BaseModel):
    """The results for several images."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"results": [_CLASSIFICATION, _PROBLEM]}]})

    results: list[Classification | Problem] = Field(
        description="For each file, in order, what `/predict` would answer for it alone."
    )


HealthStatus = Literal["ok", "starting", "draining", "unavailable"]


class RuntimeInfo(BaseModel):
    """The runtime that runs the model, and its precision."""

    name: str
    precision: str


class RefusedVersion(BaseModel):
    """A version in the model folder that failed verification."""

    version: int
    reason: str


class Health(BaseModel):
    """Whether this process can serve requests."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "ok",
                    "model": _MODEL,
                    "runtime": {"name": "openvino", "precision": "bf16"},
                    "refused": [{"version": 4, "reason": "its files differ from the exported ones: …"}],
                }
            ]
        }
    )

    status: HealthStatus
    reason: str | None = Field(None, description="Why the status is not ok, or why the model folder can't be read.")
    model: ModelRef | None = None
    runtime: RuntimeInfo | None = None
    refused: list[RefusedVersion] = Field(description="Versions that failed verification.")


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"
