"""The errors of requests and model versions. They know no HTTP; `app.http.problems` maps them to statuses.

ServiceError
├── RequestError                 the request must change before it can succeed
│   ├── MissingKeyError          the request carries no valid key
│   ├── EmptyUploadError         there are no bytes to classify
│   ├── MalformedUploadError     the multipart body can't be parsed
│   ├── UploadFieldError         the image is not in the expected form field
│   ├── UploadCountError         the request has too many images
│   ├── UnsupportedUploadError   the body is neither multipart nor an image
│   ├── UploadTooLargeError      the body has too many bytes
│   ├── TopKError                top_k is not a number from 1 to the number of classes
│   ├── UnknownModelError        the requested model or version does not serve here
│   ├── TensorError              the tensors do not match the model's input
│   └── ImageError
│       ├── UnsupportedImageError    the bytes are not an image in a supported format
│       ├── BrokenImageError         the image is truncated or damaged
│       └── ImageTooLargeError       the image has too many pixels
├── RetryableError               the same request can succeed later
│   ├── BusyError                the service is at a limit
│   │   ├── QueueFullError           of images in the queue
│   │   └── UploadsFullError         of memory for request bodies
│   └── NotReadyError            no model is loaded
├── UploadTimeoutError           the body did not arrive in time
├── DeadlineError                the answer was not ready in time
├── ClientGoneError              the client disconnected before its answer
├── InferenceError               the model failed on valid input
└── RefusedVersionError          a model version failed verification; clients never see it
"""


class ServiceError(Exception):
    """Base class. The message is for the person who gets the error."""


class RequestError(ServiceError):
    """The request must change before it can succeed."""


class MissingKeyError(RequestError):
    """The request carries no valid key."""


class EmptyUploadError(RequestError):
    """There are no bytes to classify."""


class MalformedUploadError(RequestError):
    """The multipart body can't be parsed."""


class UploadFieldError(RequestError):
    """The image is not in the expected form field, or another field has a file."""


class UploadCountError(RequestError):
    """The request has too many images."""


class UnsupportedUploadError(RequestError):
    """The body is neither multipart nor an image, or is compressed."""


class UploadTooLargeError(RequestError):
    """The body has too many bytes."""


class TopKError(RequestError):
    """`top_k` is not a number from 1 to the number of classes."""


class UnknownModelError(RequestError):
    """The requested model or version does not serve here."""


class TensorError(RequestError):
    """The tensors of an inference request do not match the model's input."""


class ImageError(RequestError):
    """The uploaded bytes can't be decoded."""


class UnsupportedImageError(ImageError):
    """The bytes are not an image in a supported format."""


class BrokenImageError(ImageError):
    """The image is truncated or damaged."""


class ImageTooLargeError(ImageError):
    """The image has too many pixels."""


class RetryableError(ServiceError):
    """The same request can succeed after `retry_after_seconds`."""

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class BusyError(RetryableError):
    """The service is at a limit. The answer is delayed by `pause_seconds`."""

    def __init__(self, message: str, *, retry_after_seconds: int, pause_seconds: float = 0) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.pause_seconds = pause_seconds


class QueueFullError(BusyError):
    """The image queue is full."""


class UploadsFullError(BusyError):
    """The memory for request bodies is full."""


class NotReadyError(RetryableError):
    """No model is loaded."""


class UploadTimeoutError(ServiceError):
    """The body did not arrive in time."""


class DeadlineError(ServiceError):
    """The answer was not ready in time."""


class ClientGoneError(ServiceError):
    """The client disconnected before its answer."""


class InferenceError(ServiceError):
    """The model failed on valid input."""


class RefusedVersionError(ServiceError):
    """A model version failed verification; the message gives the reason."""
