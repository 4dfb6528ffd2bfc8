"""Reading images out of request bodies: a multipart form, or the image itself as the body. Decodes nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from app.errors import (
    ClientGoneError,
    MalformedUploadError,
    UnsupportedUploadError,
    UploadCountError,
    UploadFieldError,
    UploadTimeoutError,
)
from app.trace import timing

# A form may carry a few things besides its images; a thousand is an attack.
_MAX_OTHER_FIELDS = 16


async def read_image(request: Request, *, timeout_seconds: float) -> bytes:
    """Read the one image of a request: the body, or the file in the form's field `file`.

    Raises:
        UnsupportedUploadError: the body is neither a form nor an image.
        UploadFieldError: the form holds no file there.
        UploadCountError: it holds several.
        MalformedUploadError, UploadTimeoutError, UploadTooLargeError, ClientGoneError: the body can't be read.
    """
    too_many = "send one image; /predict/batch takes several"
    async with _reading(timeout_seconds, too_many):
        kind = _get_media_type(request)
        if kind.startswith("image/") and kind != "image/":
            return await request.body()
        if kind != "multipart/form-data":
            raise UnsupportedUploadError(
                f"send multipart/form-data with the image in the field 'file' (curl -F file=@image.png …), or the "
                f"image as the body with its own content type, such as image/png; this has {kind[:100] or 'none'}"
            )
        async with request.form(max_files=_MAX_OTHER_FIELDS, max_fields=_MAX_OTHER_FIELDS) as form:
            uploads = _get_files(form, "file")
            if len(uploads) > 1:
                raise UploadCountError(too_many)
            return await uploads[0].read()


async def read_images(request: Request, *, max_files: int, timeout_seconds: float) -> list[bytes]:
    """Read the images in a form's field `files`, in order.

    Raises:
        UnsupportedUploadError: the body is no form.
        UploadFieldError: the form holds no file there.
        UploadCountError: it holds more than `max_files`.
        MalformedUploadError, UploadTimeoutError, UploadTooLargeError, ClientGoneError: the body can't be read.
    """
    async with _reading(timeout_seconds, too_many=f"send at most {max_files} images at once"):
        if (kind := _get_media_type(request)) != "multipart/form-data":
            raise UnsupportedUploadError(
                f"send multipart/form-data with the images in the field 'files' (curl -F files=@a.png …); "
                f"this has {kind[:100] or 'no content type'}"
            )
        async with request.form(max_files=max_files, max_fields=_MAX_OTHER_FIELDS) as form:
            return [await upload.read() for upload in _get_files(form, "files")]


async def read_body(request: Request, *, timeout_seconds: float) -> bytes:
    """Read a body whole, whatever it is.

    Raises:
        UploadTimeoutError, UploadTooLargeError, ClientGoneError: it can't be read.
    """
    async with _reading(timeout_seconds):
        return await request.body()


def _get_media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _get_files(form: FormData, field: str) -> list[UploadFile]:
    """Return the files in `field`, at least one."""
    uploads = [value for value in form.getlist(field) if isinstance(value, UploadFile)]
    if uploads:
        return uploads
    if field in form:
        raise UploadFieldError(f"the field {field!r} holds text, not a file (with curl: -F {field}=@image.png)")
    found = ", ".join(repr(name[:50]) for name in list(form)[:5]) or "no field at all"
    raise UploadFieldError(f"the image belongs in the field {field!r}; found: {found}")


@asynccontextmanager
async def _reading(timeout_seconds: float, too_many: str = "") -> AsyncIterator[None]:
    """Turn what can happen while a body is read into the service's own errors; `too_many` is said of too many files."""
    try:
        async with asyncio.timeout(timeout_seconds):
            with timing("receive"):
                yield
    except TimeoutError as error:
        raise UploadTimeoutError(f"the body did not arrive within {timeout_seconds:g} s") from error
    except ClientDisconnect as error:
        raise ClientGoneError("the client left while it sent its body") from error
    except HTTPException as error:  # how Starlette reports a form that it can't, or won't, parse
        if error.detail.startswith("Too many files"):
            raise UploadCountError(too_many) from error
        raise MalformedUploadError(f"the multipart body can't be parsed: {error.detail}") from error
