"""What the Open Inference Protocol answers with; what it asks with is in `app.v2.tensors`."""

from typing import Any

from pydantic import BaseModel


class ServerMetadata(BaseModel):
    """What this server is."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(BaseModel):
    """The process answers."""

    live: bool


class ServerReady(BaseModel):
    """Whether requests should come here."""

    ready: bool


class ModelReady(ServerReady):
    """Whether a model serves."""

    name: str


class TensorMetadata(BaseModel):
    """One tensor of the model; a dimension of -1 is open."""

    name: str
    datatype: str
    shape: list[int]


class ModelDescription(BaseModel):
    """What the model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ResponseOutput(TensorMetadata):
    """One output tensor."""

    parameters: dict[str, Any] | None = None
    data: list[float] | None = None


class InferenceResponse(BaseModel):
    """The answer to an inference request."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[ResponseOutput]
