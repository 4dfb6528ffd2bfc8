"""Parses the tensors of the Open Inference Protocol, in JSON or as bytes after the JSON. Knows no HTTP and no model.

The protocol is https://github.com/kserve/open-inference-protocol. The bytes are its "binary tensor data extension":
little-endian, row by row, in the order of the tensors in the JSON.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError
from pydantic.config import JsonDict

from app.contract import TensorSpec
from app.errors import TensorError, UploadTooLargeError

# The protocol's names of the contract's element types.
DATATYPES = {"uint8": "UINT8", "float32": "FP32"}
# Maximum JSON bytes per number, including indentation, and for everything except the numbers.
_JSON_BYTES_PER_NUMBER = 16
_JSON_BYTES_FOR_THE_REST = 65_536
_MAX_TENSORS = 64

_TENSOR: JsonDict = {"name": "images", "datatype": "UINT8", "shape": [1, 2, 2, 3], "data": [255, 0, 0] * 4}
REQUEST_EXAMPLE: JsonDict = {"id": "42", "inputs": [_TENSOR]}


# Lists fail at the first bad item, because Pydantic would keep an error for each: gigabytes for a million.


class RequestInput(BaseModel):
    """One input tensor."""

    name: str
    datatype: str
    shape: list[NonNegativeInt] = Field(fail_fast=True, description="The first dimension counts the images.")
    parameters: dict[str, Any] | None = Field(None, description="`binary_data_size` if the data follow the JSON.")
    data: list[Any] | None = Field(None, description="The numbers, flat or nested.")


class RequestedOutput(BaseModel):
    """One requested output tensor."""

    name: str
    parameters: dict[str, Any] | None = Field(None, description="`binary_data`: true for a binary output.")


class InferenceRequest(BaseModel):
    """The JSON of an inference request."""

    id: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="`binary_data_output`: true for binary outputs.")
    inputs: list[RequestInput] = Field(max_length=_MAX_TENSORS, fail_fast=True)
    outputs: list[RequestedOutput] | None = Field(None, max_length=_MAX_TENSORS, fail_fast=True)


class WantedOutput(NamedTuple):
    """A requested output and its encoding."""

    name: str
    as_bytes: bool  # after the JSON


class ParsedRequest(NamedTuple):
    """A parsed inference request."""

    id: str | None
    images: NDArray[np.uint8]  # (N, H, W, 3)
    outputs: list[WantedOutput]


def parse_request(
    body: bytes,
    json_length: int | None,
    *,
    model_input: TensorSpec,
    model_outputs: Sequence[TensorSpec],
    max_images: int,
) -> ParsedRequest:
    """Parse the body of an inference request.

    Args:
        body: the whole body.
        json_length: the number of bytes of JSON; None if there is nothing else.
        model_input: the model's input.
        model_outputs: the model's outputs.
        max_images: the maximum number of images.

    Raises:
        TensorError: the body is not an inference request, or does not match the model.
        UploadTooLargeError: the JSON is longer than `max_images` images need.
    """
    size = math.prod(model_input.shape)
    head, tail = (body, b"") if json_length is None else (body[:json_length], body[json_length:])
    if json_length is not None and len(head) < json_length:
        raise TensorError(f"the body has {len(body)} bytes, but its header announces {json_length} bytes of JSON")
    if len(head) > _JSON_BYTES_FOR_THE_REST + _JSON_BYTES_PER_NUMBER * size * max_images:
        raise UploadTooLargeError(f"the JSON is longer than {max_images} images need; send them as binary data")
    try:
        request = InferenceRequest.model_validate_json(head)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        subject = f"the request's {place!r}" if place else "the body is not an inference request"
        raise TensorError(f"{subject}: {first['msg']}") from error

    if [tensor.name for tensor in request.inputs] != [model_input.name]:
        raise TensorError(f"the model takes one input, {model_input.name!r}; sent: {_name(request.inputs)}")
    (tensor,) = request.inputs
    datatype, shape = DATATYPES[model_input.dtype], tuple(tensor.shape)
    if tensor.datatype != datatype or shape[1:] != model_input.shape or not 1 <= shape[0] <= max_images:
        raise TensorError(
            f"{model_input.name!r} is {datatype} with the shape "
            f"[1 to {max_images}, {', '.join(map(str, model_input.shape))}]; "
            f"sent: {tensor.datatype[:20]} {tensor.shape[:8]}"
        )
    expected = shape[0] * size
    numbers = _read_bytes(tensor, tail, expected) if tail else _read_json(tensor, expected)
    return ParsedRequest(
        request.id, numbers.reshape(shape), _choose_outputs(request, [spec.name for spec in model_outputs])
    )


def _name(tensors: Sequence[RequestInput | RequestedOutput]) -> str:
    return ", ".join(repr(tensor.name[:50]) for tensor in tensors[:5]) or "none"


def _read_bytes(tensor: RequestInput, data: bytes, expected: int) -> NDArray[np.uint8]:
    announced = (tensor.parameters or {}).get("binary_data_size")
    if not len(data) == announced == expected or tensor.data is not None:
        raise TensorError(
            f"{tensor.name!r} needs {expected} bytes, binary_data_size says {str(announced)[:20]}, "
            f"and {len(data)} follow the JSON"
        )
    return np.frombuffer(data, np.uint8)


def _read_json(tensor: RequestInput, expected: int) -> NDArray[np.uint8]:
    if tensor.data is None:
        raise TensorError(f"{tensor.name!r} has neither 'data' nor bytes after the JSON")
    # As objects, because NumPy would otherwise store every number in the space of the longest text among them.
    numbers = np.asarray(tensor.data, dtype=object).ravel()
    kinds = {type(number) for number in numbers}
    if numbers.size != expected or kinds != {int}:
        found = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise TensorError(
            f"{tensor.name!r} needs {expected} integers; its data has {numbers.size} of {found or 'nothing'}"
        )
    try:
        return numbers.astype(np.uint8)
    except OverflowError as error:
        raise TensorError(f"the data of {tensor.name!r} must be between 0 and 255") from error


def _choose_outputs(request: InferenceRequest, names: Sequence[str]) -> list[WantedOutput]:
    """Return the outputs that the request names, or all; an output's own parameters override the request's."""
    requested = request.outputs or [RequestedOutput(name=name) for name in names]
    asked = [output.name for output in requested]
    if not set(asked) <= set(names) or len(set(asked)) < len(asked):
        known = " and ".join(map(repr, names))
        raise TensorError(f"the model's outputs are {known}, each at most once; requested: {_name(requested)}")
    wanted = []
    for output in requested:
        parameters = (request.parameters or {}) | (output.parameters or {})
        if "classification" in parameters:
            raise TensorError("the classification extension is not supported; /predict names classes")
        as_bytes = bool(parameters.get("binary_data", parameters.get("binary_data_output", False)))
        wanted.append(WantedOutput(output.name, as_bytes))
    return wanted
