"""Reading images out of request bodies: a multipart form, or the image itself as the body. Decodes nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from app.errors import ClientGoneError, UnsupportedUploadError, UploadFieldError, UploadTimeoutError
from app.http.multipart import read_form
from app.telemetry.timings import timing


async def read_image(request: Request, *, timeout_seconds: float) -> bytes:
    """Read the one image of a request: the body, or the file in the form's field `file`.

    Raises:
        UnsupportedUploadError: the body is neither a form nor an image, or is compressed.
        UploadFieldError: the form holds no file there, or text, or a file elsewhere.
        UploadCountError: it holds several.
        MalformedUploadError, UploadTimeoutError, UploadTooLargeError, ClientGoneError: the body can't be read.
    """
    async with _reading(request, timeout_seconds):
        kind = _get_media_type(request)
        if kind.startswith("image/") and kind != "image/":
            return await request.body()
        if kind != "multipart/form-data":
            raise UnsupportedUploadError(
                f"send multipart/form-data with the image in the field 'file' (curl -F file=@image.png …), or the "
                f"image as the body with its own content type, such as image/png; this has {kind[:100] or 'none'}"
            )
        [image] = await _read_files(
            request, "file", max_files=1, too_many="send one image; /predict/batch takes several"
        )
        return image


async def read_images(request: Request, *, max_files: int, timeout_seconds: float) -> list[bytes]:
    """Read the images in a form's field `files`, in order.

    Raises:
        UnsupportedUploadError: the body is no form, or is compressed.
        UploadFieldError: the form holds no file there, or text, or a file elsewhere.
        UploadCountError: it holds more than `max_files`.
        MalformedUploadError, UploadTimeoutError, UploadTooLargeError, ClientGoneError: the body can't be read.
    """
    async with _reading(request, timeout_seconds):
        if (kind := _get_media_type(request)) != "multipart/form-data":
            raise UnsupportedUploadError(
                f"send multipart/form-data with the images in the field 'files' (curl -F files=@a.png …); "
                f"this has {kind[:100] or 'no content type'}"
            )
        too_many = f"send at most {max_files} images at once" if max_files > 1 else "send one image at once"
        return await _read_files(request, "files", max_files=max_files, too_many=too_many)


async def read_body(request: Request, *, timeout_seconds: float) -> bytes:
    """Read a body whole, whatever it is.

    Raises:
        UnsupportedUploadError: it is compressed.
        UploadTimeoutError, UploadTooLargeError, ClientGoneError: it can't be read.
    """
    async with _reading(request, timeout_seconds):
        return await request.body()


def _get_media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read_files(request: Request, field: str, *, max_files: int, too_many: str) -> list[bytes]:
    """Read the files in `field` of a form, at least one."""
    form = await read_form(request.headers["content-type"], request.stream(), max_files=max_files, too_many=too_many)
    # A part that is left out would move the answers to all that follow.
    if any(part.name == field and not part.is_file for part in form):
        raise UploadFieldError(f"the field {field!r} holds text, not a file (with curl: -F {field}=@image.png)")
    files = [part for part in form if part.is_file]
    if not files or any(part.name != field for part in files):
        others = dict.fromkeys(repr(part.name[:50]) for part in files or form if part.name != field)
        found = ", ".join(list(others)[:5]) or "no field at all"
        raise UploadFieldError(f"the image belongs in the field {field!r}; found: {found}")
    return [bytes(part.data) for part in files]


@asynccontextmanager
async def _reading(request: Request, timeout_seconds: float) -> AsyncIterator[None]:
    """Turn what can happen while a body is read into the service's own errors; refuse one that is compressed."""
    encoding = request.headers.get("content-encoding") or "identity"
    if encoding.lower() != "identity":
        raise UnsupportedUploadError(f"send the body as it is, without Content-Encoding: {encoding[:50]}")
    try:
        async with asyncio.timeout(timeout_seconds):
            with timing("receive"):
                yield
    except TimeoutError as error:
        raise UploadTimeoutError(f"the body did not arrive within {timeout_seconds:g} s") from error
    except ClientDisconnect as error:
        raise ClientGoneError("the client left while it sent its body") from error
