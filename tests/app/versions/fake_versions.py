"""Version folders without a model, and a function that loads them."""

from pathlib import Path

from app.errors import RefusedVersionError
from app.versions.model import Model
from app.versions.store import ModelStore
from tests.app.fakes import make_model


class Loader:
    """Loads a folder by its name; refuses one with a file `bad`, with the file's text as the reason."""

    def __init__(self) -> None:
        self.loaded: list[int] = []
        self.trouble: Exception | None = None

    def __call__(self, folder: Path) -> Model:
        self.loaded.append(int(folder.name))
        if (folder / "bad").exists():
            raise RefusedVersionError((folder / "bad").read_text())
        if (folder / "bug").exists():
            raise ZeroDivisionError
        if self.trouble:
            raise self.trouble
        return make_model(version=int(folder.name))


def add(models: Path, number: int, file: str = "good", text: str = "") -> Path:
    folder = models / "tiny" / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(text)
    return folder


def get_version(store: ModelStore) -> int:
    return store.require_model().metadata.version
