"""Everything that can go wrong with a request or a model version, as exceptions that know no HTTP.

ServiceError
├── RequestError                 the request must change before it can succeed
│   ├── MissingKeyError          the request carries no valid key
│   ├── EmptyUploadError         there are no bytes to classify
│   ├── MalformedUploadError     the multipart body can't be parsed
│   ├── UploadFieldError         the image is not where it should be
│   ├── UploadCountError         there are more images than are taken at once
│   ├── UnsupportedUploadError   the body is neither multipart nor an image
│   ├── UploadTooLargeError      the body has more bytes than are taken
│   ├── TopKError                no number of predictions that the model can give is asked for
│   ├── UnknownModelError        the model or version that is asked for does not serve here
│   ├── TensorError              an inference request's tensors are not what the model takes
│   └── ImageError
│       ├── UnsupportedImageError    the bytes are no image of a kind that is read
│       ├── BrokenImageError         the image is truncated or damaged
│       └── ImageTooLargeError       the image has more pixels than are decoded
├── RetryableError               the same request can succeed later
│   ├── BusyError                the service is overloaded
│   │   ├── QueueFullError           the queue of images is full
│   │   └── UploadsFullError         request bodies use all their memory
│   └── NotReadyError            no model is loaded
├── UploadTimeoutError           the body did not arrive in time
├── DeadlineError                the answer was not ready in time
├── ClientGoneError              the client left before its answer
├── InferenceError               the model failed on valid input
└── RefusedVersionError          a model version may not serve; no client sees it
"""


class ServiceError(Exception):
    """Base of all; its text is meant for the one who receives it."""


class RequestError(ServiceError):
    """The request must change before it can succeed."""


class MissingKeyError(RequestError):
    """The request carries no valid key."""


class EmptyUploadError(RequestError):
    """There are no bytes to classify."""


class MalformedUploadError(RequestError):
    """The multipart body can't be parsed."""


class UploadFieldError(RequestError):
    """The image is not in the field where it should be, or something else is."""


class UploadCountError(RequestError):
    """There are more images than are taken at once."""


class UnsupportedUploadError(RequestError):
    """The body is neither multipart nor an image, or is compressed."""


class UploadTooLargeError(RequestError):
    """The body has more bytes than are taken."""


class TopKError(RequestError):
    """What is asked for is no number of predictions, or none, or more than there are classes."""


class UnknownModelError(RequestError):
    """The model or version that is asked for does not serve here."""


class TensorError(RequestError):
    """An inference request's tensors are not what the model takes."""


class ImageError(RequestError):
    """The uploaded bytes can't become an image for the model."""


class UnsupportedImageError(ImageError):
    """The bytes are no image of a kind that is read."""


class BrokenImageError(ImageError):
    """The image is truncated or damaged."""


class ImageTooLargeError(ImageError):
    """The image has more pixels than are decoded."""


class RetryableError(ServiceError):
    """The same request can succeed after `retry_after_seconds`."""

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class BusyError(RetryableError):
    """The service is overloaded."""


class QueueFullError(BusyError):
    """The queue of images is full."""


class UploadsFullError(BusyError):
    """Request bodies use all the memory reserved for them."""


class NotReadyError(RetryableError):
    """No model is loaded."""


class UploadTimeoutError(ServiceError):
    """The body did not arrive in time."""


class DeadlineError(ServiceError):
    """The answer was not ready in time."""


class ClientGoneError(ServiceError):
    """The client left before its answer."""


class InferenceError(ServiceError):
    """The model failed on valid input."""


class RefusedVersionError(ServiceError):
    """A model version may not serve; the text says why."""
