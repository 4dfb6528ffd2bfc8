"""Checks the model that the path of a request names."""

from app.errors import UnknownModelError
from app.versions.model import Model


def require_named(model: Model, name: str, version: str | None = None) -> Model:
    """Return `model` if it has the requested name and, if a version is requested, that version.

    Raises:
        UnknownModelError: its name or version differs.
    """
    serving = model.metadata
    if name == serving.name and version in {None, str(serving.version)}:
        return model
    asked = f"{name[:64]!r}" + (f" version {version[:20]}" if version is not None else "")
    raise UnknownModelError(f"{asked} is not being served; {serving.name!r} version {serving.version} is")
