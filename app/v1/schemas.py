"""The JSON of TensorFlow Serving's REST API. Its names are those of TensorFlow Serving's protocol buffers."""

from typing import Any, Literal

from pydantic import BaseModel, Field

# A red image of 2 x 2 pixels, as a PNG in base64 and as an array.
_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR4nGP8z8DAwMDAxMDAwMDAAAANHQEDasKb6QAAAABJRU5ErkJggg=="
_ARRAY = [[[255, 0, 0]] * 2] * 2
PREDICT_EXAMPLES = {
    "encoded images": {"value": {"instances": [{"b64": _PNG}]}},
    "arrays": {"value": {"instances": [_ARRAY]}},
    "columns": {"value": {"inputs": {"images": [_ARRAY]}}},
}


class PredictRequest(BaseModel):
    """A predict request: either `instances` or `inputs`."""

    signature_name: str | None = Field(None, description="`serving_default`, the only one.")
    instances: list[Any] | None = Field(
        None, description='The images: `{"b64": "…"}` or an array, by itself or under the name of the input.'
    )
    inputs: Any = Field(None, description="The same as a list, by itself or under the name of the input.")


class Predictions(BaseModel):
    """The reply to `instances`."""

    predictions: list[list[float]] = Field(description="For each image the probabilities of the classes, in order.")


class Outputs(BaseModel):
    """The reply to `inputs`."""

    outputs: list[list[float]] = Field(description="For each image the probabilities of the classes, in order.")


class Status(BaseModel):
    """A status without an error."""

    error_code: Literal["OK"] = "OK"
    error_message: str = ""


class VersionStatus(BaseModel):
    """The status of a version that serves."""

    version: str
    state: Literal["AVAILABLE"] = "AVAILABLE"
    status: Status = Status()


class ModelStatus(BaseModel):
    """The status of the model; `name` and `ready` are KServe's."""

    model_version_status: list[VersionStatus]
    name: str
    ready: bool


class ModelList(BaseModel):
    """The models that serve."""

    models: list[str]


class ModelSpec(BaseModel):
    """A model and its version."""

    name: str
    signature_name: str = ""
    version: str


class TensorInfo(BaseModel):
    """A tensor of the model; a dimension of -1 can have any size."""

    dtype: str
    tensor_shape: dict[str, Any]
    name: str


class SignatureDef(BaseModel):
    """What the model takes and returns."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]
    method_name: Literal["tensorflow/serving/predict"] = "tensorflow/serving/predict"


class SignatureDefs(BaseModel):
    """Signatures by name."""

    signature_def: dict[str, SignatureDef]


class Metadata(BaseModel):
    """The signatures of a version."""

    model_spec: ModelSpec
    metadata: dict[Literal["signature_def"], SignatureDefs]
