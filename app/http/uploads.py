"""Reads images from request bodies: from a multipart form, or the body itself. Decodes nothing."""

import asyncio
import time

from starlette.requests import Request

from app.errors import ClientGoneError, UnsupportedUploadError, UploadCountError, UploadFieldError, UploadTimeoutError
from app.http.multipart import parse_form
from app.telemetry.timings import note_stage

# Many clients send images with one of these types or none. The decoder checks the bytes.
_UNTYPED = {"", "application/octet-stream", "binary/octet-stream"}


async def read_image(request: Request, *, timeout_seconds: float) -> bytes:
    """Read the one image of a request: the body, or the file in the form's field `file`.

    Raises:
        UnsupportedUploadError: the body is neither a form nor an image, or has an unknown encoding.
        UploadFieldError: the form has no file in that field, or text, or files in other fields.
        UploadCountError: the form has several files.
        MalformedUploadError, UploadTimeoutError, UploadTooLargeError, ClientGoneError: the body can't be read.
    """
    kind = _get_media_type(request)
    if kind in _UNTYPED or (kind.startswith("image/") and kind != "image/"):
        return await read_body(request, timeout_seconds=timeout_seconds)
    if kind != "multipart/form-data":
        raise UnsupportedUploadError(
            f"send multipart/form-data with the image in the field 'file' (curl -F file=@image.png …), or the "
            f"image as the body with its own content type, such as image/png; this has {kind[:100]}"
        )
    body = await read_body(request, timeout_seconds=timeout_seconds)
    too_many = "send one image; /predict/batch takes several"
    [image] = _take_files(request, body, "file", max_files=1, too_many=too_many)
    return image


async def read_images(request: Request, *, max_files: int, timeout_seconds: float) -> list[bytes]:
    """Read the images in a form's field `files`, in order.

    Raises:
        UnsupportedUploadError: the body is not a form, or has an unknown encoding.
        UploadFieldError: the form has no file in that field, or text, or files in other fields.
        UploadCountError: the form has more than `max_files` files.
        MalformedUploadError, UploadTimeoutError, UploadTooLargeError, ClientGoneError: the body can't be read.
    """
    if (kind := _get_media_type(request)) != "multipart/form-data":
        raise UnsupportedUploadError(
            f"send multipart/form-data with the images in the field 'files' (curl -F files=@a.png …); "
            f"this has {kind[:100] or 'no content type'}"
        )
    body = await read_body(request, timeout_seconds=timeout_seconds)
    too_many = f"send at most {max_files} images in one request" if max_files > 1 else "send one image in one request"
    return _take_files(request, body, "files", max_files=max_files, too_many=too_many)


async def read_body(request: Request, *, timeout_seconds: float) -> bytes:
    """Read a whole body of any kind.

    Raises:
        UnsupportedUploadError: it has an unknown encoding.
        MalformedUploadError, UploadTimeoutError, UploadTooLargeError, ClientGoneError: it can't be read.
    """
    started = time.monotonic()
    pieces = []  # not `request.body()`, which keeps the body for as long as the request
    more_body = True
    try:
        async with asyncio.timeout(timeout_seconds):
            while more_body:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError("the client disconnected while it sent its body")
                pieces.append(message.get("body", b""))
                more_body = message.get("more_body", False)
    except TimeoutError as error:
        raise UploadTimeoutError(f"the body did not arrive within {timeout_seconds:g} s") from error
    note_stage("receive", time.monotonic() - started)
    return b"".join(pieces)


def _get_media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _take_files(request: Request, body: bytes, field: str, *, max_files: int, too_many: str) -> list[bytes]:
    """Return the files in `field` of a form, at least one."""
    form = parse_form(request.headers["content-type"], body, max_files=max_files)
    files = [part for part in form if part.is_file]
    if len(files) > max_files:
        raise UploadCountError(too_many)
    # Skipping a part would shift the results of all later files.
    if any(part.name == field and not part.is_file for part in form):
        raise UploadFieldError(f"the field {field!r} holds text, not a file (with curl: -F {field}=@image.png)")
    if not files or any(part.name != field for part in files):
        others = dict.fromkeys(repr(part.name[:50]) for part in files or form if part.name != field)
        found = ", ".join(list(others)[:5]) or "no field at all"
        raise UploadFieldError(f"the image belongs in the field {field!r}; found: {found}")
    return [part.data for part in files]
