"""The responses of the Open Inference Protocol. Its requests are in `app.v2.tensors`."""

from typing import Any

from pydantic import BaseModel


class ServerMetadata(BaseModel):
    """The server's name, version and extensions."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(BaseModel):
    """The process answers."""

    live: bool


class ServerReady(BaseModel):
    """Whether the server accepts inference requests."""

    ready: bool


class ModelReady(ServerReady):
    """Whether the model accepts inference requests."""

    name: str


class TensorMetadata(BaseModel):
    """A tensor of the model; a dimension of -1 can have any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelDescription(BaseModel):
    """The model's versions, inputs and outputs."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ResponseOutput(TensorMetadata):
    """An output tensor."""

    parameters: dict[str, Any] | None = None
    data: list[float] | None = None


class InferenceResponse(BaseModel):
    """The reply to an inference request."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[ResponseOutput]
