"""Every error that a request or a model version can cause, as exceptions that know no HTTP.

ServiceError
├── RequestError                 the request must change before it can succeed
│   ├── MissingKeyError          the request has no valid API key
│   ├── UnknownHostError         the Host header names a host that this service does not serve
│   ├── CrossSiteError           a page of another site sent the request
│   ├── EmptyUploadError         there are no bytes to classify
│   ├── MalformedUploadError     the body can't be parsed or unpacked
│   ├── UploadFieldError         the form has no image in the right field
│   ├── UploadCountError         the request has too many images
│   ├── UnsupportedUploadError   the body has a type or an encoding that is not supported
│   ├── UploadTooLargeError      the body has too many bytes
│   ├── TopKError                top_k is not a number of classes that the model has
│   ├── UnknownModelError        the requested model or version is not being served
│   ├── TensorError              the tensors of an inference request don't fit the model
│   └── ImageError
│       ├── UnsupportedImageError    the bytes are not in a supported image format
│       ├── BrokenImageError         the image is truncated or damaged
│       └── ImageTooLargeError       the image has too many pixels
├── RetryableError               the same request can succeed later
│   ├── BusyError                the service is overloaded
│   │   ├── QueueFullError           the queue of images is full
│   │   └── UploadsFullError         request bodies use all their memory
│   └── NotReadyError            no model is loaded
├── UploadTimeoutError           the body did not arrive in time
├── DeadlineError                the answer was not ready in time
├── ClientGoneError              the client disconnected before its answer
├── InferenceError               the model failed on valid input
└── RefusedVersionError          a model version failed its checks; no client sees it

Each error that a client can receive has a `code`, a stable identifier for programs.
"""

from typing import ClassVar


class ServiceError(Exception):
    """Base of all; its text is written for the person who receives it."""

    code: ClassVar[str]


class RequestError(ServiceError):
    """The request must change before it can succeed."""


class MissingKeyError(RequestError):
    """The request has no valid API key."""

    code = "missing_key"


class UnknownHostError(RequestError):
    """The Host header names a host that this service does not serve."""

    code = "unknown_host"


class CrossSiteError(RequestError):
    """A page of another site sent the request."""

    code = "cross_site"


class EmptyUploadError(RequestError):
    """There are no bytes to classify."""

    code = "empty_upload"


class MalformedUploadError(RequestError):
    """The body can't be parsed or unpacked."""

    code = "malformed_upload"


class UploadFieldError(RequestError):
    """The form has no image in the right field, or something else is there."""

    code = "wrong_field"


class UploadCountError(RequestError):
    """The request has too many images."""

    code = "too_many_images"


class UnsupportedUploadError(RequestError):
    """The body has a media type or a content encoding that is not supported."""

    code = "unsupported_upload"


class UploadTooLargeError(RequestError):
    """The body has too many bytes."""

    code = "upload_too_large"


class TopKError(RequestError):
    """`top_k` is not a number, or not a number of classes that the model has."""

    code = "top_k_out_of_range"


class UnknownModelError(RequestError):
    """The requested model or version is not being served."""

    code = "unknown_model"


class TensorError(RequestError):
    """The tensors of an inference request don't fit the model."""

    code = "wrong_tensor"


class ImageError(RequestError):
    """The uploaded bytes can't become an image for the model."""


class UnsupportedImageError(ImageError):
    """The bytes are not in a supported image format."""

    code = "unsupported_image"


class BrokenImageError(ImageError):
    """The image is truncated or damaged."""

    code = "broken_image"


class ImageTooLargeError(ImageError):
    """The image has too many pixels."""

    code = "image_too_large"


class RetryableError(ServiceError):
    """The same request can succeed after `retry_after_seconds`."""

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class BusyError(RetryableError):
    """The service is overloaded."""


class QueueFullError(BusyError):
    """The queue of images is full."""

    code = "queue_full"


class UploadsFullError(BusyError):
    """Request bodies use all the memory reserved for them."""

    code = "uploads_full"


class NotReadyError(RetryableError):
    """No model is loaded."""

    code = "not_ready"


class UploadTimeoutError(ServiceError):
    """The body did not arrive in time."""

    code = "upload_timeout"


class DeadlineError(ServiceError):
    """The answer was not ready in time."""

    code = "deadline_passed"


class ClientGoneError(ServiceError):
    """The client disconnected before its answer."""

    code = "client_gone"


class InferenceError(ServiceError):
    """The model failed on valid input."""

    code = "inference_failed"


class RefusedVersionError(ServiceError):
    """A model version failed its checks; the text says which."""
