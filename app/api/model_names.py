"""The model that a request names in its path."""

from app.errors import UnknownModelError
from app.versions.model import Model


def require_named(model: Model, name: str, version: str | None = None) -> Model:
    """Return `model` if a request means it; without a version, any version of the name will do.

    Raises:
        UnknownModelError: the request means another model or version.
    """
    serving = model.metadata
    if name == serving.name and version in {None, str(serving.version)}:
        return model
    asked = f"{name[:64]!r}" + (f" version {version[:20]}" if version is not None else "")
    raise UnknownModelError(f"{asked} does not serve here; {serving.name!r} version {serving.version} does")
