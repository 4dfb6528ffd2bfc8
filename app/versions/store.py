"""The folder of versions: finds the newest that may serve, loads it beside the one that serves, swaps. Knows no web.

`refresh` is one look at the folder. Call it once and it loads a model; call it again and again and it follows the
folder: a new version is taken, a bad one refused, a removed one rolled back.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from app.errors import NotReadyError, RefusedVersionError
from app.versions.model import Load, Model

_VERSION_NAME = re.compile(r"[1-9][0-9]{0,17}")
# What a client is told to wait: loading takes seconds, a missing model a person.
_RETRY_WHILE_STARTING_SECONDS = 2
_RETRY_WITHOUT_MODEL_SECONDS = 30

Outcome = Literal["loaded", "refused"]

logger = logging.getLogger(__name__)


class Version(NamedTuple):
    """A version folder as it was seen: a changed file makes it another one, worth another try."""

    number: int
    folder: Path
    files: tuple[tuple[str, int, int], ...]  # path, bytes, modification time in ns


@dataclass(frozen=True)
class Refusal:
    """A version that may not serve, and why."""

    version: int
    reason: str


class ModelStore:
    """Holds the model that serves. All state belongs to the event loop; loading happens in a thread of its own."""

    def __init__(self, folder: Path, load: Load, *, observe: Callable[[Outcome], None] = lambda _: None) -> None:
        """Make a store that has not looked yet.

        Args:
            folder: holds one `<name>/<version>/`, or the `<version>` folders themselves.
            load: gives a model that may serve, or raises RefusedVersionError.
            observe: told how each attempt to load a version ended.
        """
        self._observe = observe
        self._folder = folder
        self._load = load
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model-loader")
        self._loaded: Version | None = None
        self._refused: dict[Version, str] = {}
        self._unread: set[Version] = set()  # those of the refused that are worth another try as they are
        self._model: Model | None = None
        self._retired: list[Model] = []  # those that served before, until the next look
        self._reason = f"looking for a model under {folder}"
        self._trouble: str | None = None
        self._looked = False

    @property
    def model(self) -> Model | None:
        """The model that serves, if there is one."""
        return self._model

    @property
    def starting(self) -> bool:
        """Whether the first look is not over."""
        return not self._looked

    @property
    def trouble(self) -> str | None:
        """Why the last look found no versions to choose from; what serves goes on."""
        return self._trouble

    @property
    def refusals(self) -> list[Refusal]:
        """Versions in the folder that may not serve, newest first."""
        return [Refusal(version.number, reason) for version, reason in sorted(self._refused.items(), reverse=True)]

    def require_model(self) -> Model:
        """Return the model that serves.

        Raises:
            NotReadyError: there is none (yet).
        """
        if self._model is not None:
            return self._model
        seconds = _RETRY_WHILE_STARTING_SECONDS if self.starting else _RETRY_WITHOUT_MODEL_SECONDS
        raise NotReadyError(f"no model serves: {self._reason}", retry_after_seconds=seconds)

    async def refresh(self, settled: Collection[Version] | None = None) -> list[Version]:
        """Look at the folder and make the newest version that may serve the one that serves.

        Never raises for what the folder holds: a version that can't serve is refused, with its reason in the log and
        in `refusals`, and the one that served goes on, even if its own folder was spoiled meanwhile.

        Args:
            settled: what an earlier look saw. A version that is not in it may still be on its way into the folder, and
                waits for the next look. None takes whatever is there.

        Returns:
            The versions that are there, newest first.
        """
        loop = asyncio.get_running_loop()
        # The last who lets go of a model waits 20 ms for OpenVINO to free it. Most of its requests have ended by now.
        await loop.run_in_executor(self._thread, self._retired.clear)
        try:
            versions = await loop.run_in_executor(self._thread, find_versions, self._folder)
        except (OSError, RefusedVersionError) as error:
            if str(error) != self._trouble:  # once, however often the folder is looked at
                logger.warning("no version to load: %s", error)
            self._trouble = self._reason = str(error)
            self._looked = True
            if isinstance(error, RefusedVersionError):  # it was looked at, and none is there
                self._refused.clear()
                self._unread.clear()
            return []
        self._trouble = None
        self._refused = {version: reason for version, reason in self._refused.items() if version in versions}
        self._unread.intersection_update(versions)
        for version in versions:
            if version == self._loaded:
                break
            known_bad = version in self._refused and version not in self._unread
            passed_over = known_bad or (settled is not None and version not in settled)
            # To end this process would be to lose the other ones, too.
            guarded = self._model is not None or len(versions) > 1
            if not passed_over and await self._take(version, guarded=guarded):
                break
            if self._loaded and version.number == self._loaded.number:
                break  # its files have changed for the worse; what is in memory is still good
        self._looked = True
        return versions

    @asynccontextmanager
    async def following(self, poll_seconds: float = 0) -> AsyncIterator[None]:
        """Load the model in the background, and follow the folder for as long as the context is entered.

        The folder is looked at every `poll_seconds`, or once if that is 0. Looking works where notifications of
        changes do not: on network volumes and on folders that are mounted into a container.
        """
        task = asyncio.create_task(self._follow(poll_seconds))
        try:
            yield
        finally:
            task.cancel()
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _follow(self, poll_seconds: float) -> None:
        seen: list[Version] | None = None
        while True:
            try:
                seen = await self.refresh(seen)
            except Exception as error:
                logger.exception("looking for a model failed")
                self._trouble = self._reason = f"looking for a model failed: {error}"
                self._looked = True
            if not poll_seconds:
                return
            await asyncio.sleep(poll_seconds)

    async def _take(self, version: Version, *, guarded: bool) -> bool:
        """Load `version` and let it serve, or refuse it; say which."""
        self._reason = f"loading version {version.number}"
        self._unread.discard(version)
        try:
            load = partial(self._load_own, version.folder, guarded=guarded)
            model = await asyncio.get_running_loop().run_in_executor(self._thread, load)
            if self._model is not None and model.metadata.input != self._model.metadata.input:
                self._retired.append(model)
                # Images already decoded for the one would reach the other.
                raise RefusedVersionError(
                    f"it takes {model.metadata.input}, the serving one {self._model.metadata.input}; restart to change"
                )
        except RefusedVersionError as error:
            self._refuse(version, str(error))
            return False
        except (OSError, MemoryError) as error:  # of a volume or a machine, and over by the next look, perhaps
            self._unread.add(version)
            self._refuse(version, f"it can't be read now: {error or type(error).__name__}")
            return False
        except Exception as error:  # whatever is wrong with one version, an older one must still serve
            logger.exception("version %d can't be loaded", version.number)
            self._refuse(version, f"{type(error).__name__}: {error}")
            return False
        self._refused.pop(version, None)
        if self._model is not None:
            self._retired.append(self._model)
        self._model, self._loaded = model, version
        self._observe("loaded")
        logger.info(
            "%s version %d serves (%s, %s)",
            model.metadata.name, version.number, model.runtime.name, model.runtime.precision,
        )  # fmt: skip
        return True

    def _load_own(self, folder: Path, *, guarded: bool) -> Model:
        # A link from one place in the folder to another is how Kubernetes and others put a whole version there at once.
        if not folder.resolve().is_relative_to(self._folder.resolve()):
            raise RefusedVersionError(f"it is a link out of {self._folder}")
        try:
            return self._load(folder, guarded=guarded)
        except RefusedVersionError as error:
            reason = str(error)
        raise RefusedVersionError(reason)  # anew: the other's traceback holds the model until the event loop drops it

    def _refuse(self, version: Version, reason: str) -> None:
        """Note why `version` may not serve; tell of it unless that is known."""
        self._reason = f"version {version.number} was refused: {reason}"
        if self._refused.get(version) == reason:
            return
        self._refused[version] = reason
        logger.error("version %d refused: %s", version.number, reason)
        self._observe("refused")


def find_versions(folder: Path) -> list[Version]:
    """List the version folders, newest first.

    Raises:
        RefusedVersionError: there are none, or those of several models.
        OSError: a folder can't be read.
    """
    if not folder.is_dir():
        raise RefusedVersionError(f"{folder} is no folder; APP_MODEL_DIR names where the versions are")
    versions = _list_versions(folder)
    if not versions:
        models = {
            model.name: found
            for model in folder.iterdir()
            if model.is_dir() and not model.name.startswith(".") and (found := _list_versions(model))
        }
        if len(models) > 1:
            raise RefusedVersionError(
                f"{folder} holds several models ({', '.join(sorted(models))}); let APP_MODEL_DIR name one of them"
            )
        versions = next(iter(models.values()), [])
    if not versions:
        raise RefusedVersionError(f"{folder} holds no version; expected {folder}/<name>/<version>/")
    return sorted(versions, reverse=True)


def _list_versions(folder: Path) -> list[Version]:
    return [
        Version(int(path.name), path, _list_files(path))
        for path in folder.iterdir()
        if _VERSION_NAME.fullmatch(path.name) and path.is_dir()
    ]


def _list_files(folder: Path) -> tuple[tuple[str, int, int], ...]:
    stats = ((str(path.relative_to(folder)), path.lstat()) for path in sorted(folder.rglob("*")))
    return tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats)
