"""Decides which version serves: loads the newest that may, beside the one that serves, and swaps. Knows no HTTP.

`refresh` looks at the folder once. Called again and again it follows the folder: it loads a new version, refuses a bad
one, and rolls back when a version is removed.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from app.contract import ModelMetadata
from app.errors import NotReadyError, RefusedVersionError
from app.versions.folder import Version, find_versions
from app.versions.loader import Load
from app.versions.model import Model

# A version loads in seconds; a missing one needs a person.
_RETRY_WHILE_STARTING_SECONDS = 2
_RETRY_WITHOUT_MODEL_SECONDS = 30
_LISTED_NAMES = 5

Outcome = Literal["loaded", "refused"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refusal:
    """A version that may not serve, and why."""

    version: int
    reason: str


class ModelStore:
    """Holds the model that serves. All state belongs to the event loop; loading happens in a thread of its own."""

    def __init__(
        self,
        folder: Path,
        load: Load,
        *,
        pinned: int | None = None,
        observe: Callable[[Outcome], None] = lambda _: None,
    ) -> None:
        """Make a store without a model; the first `refresh` loads one.

        Args:
            folder: see `app.versions.folder.find_versions`.
            load: returns a model that may serve, or raises RefusedVersionError.
            pinned: the only version that may serve; None for the newest.
            observe: called with the outcome of each attempt to load a version.
        """
        self._pinned = pinned
        self._observe = observe
        self._folder = folder
        self._load = load
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model-loader")
        self._loaded: Version | None = None
        self._refused: dict[Version, str] = {}
        self._unread: set[Version] = set()  # the refused versions that are tried again although unchanged
        self._model: Model | None = None
        self._retired: list[Model] = []  # models that served before; freed at the next look
        self._reason = f"looking for a model under {folder}"
        self._trouble: str | None = None
        self._warnings: set[str] = set()  # those logged already
        self._looked = False

    @property
    def model(self) -> Model | None:
        """The model that serves, if any."""
        return self._model

    @property
    def starting(self) -> bool:
        """Whether the first look at the folder still goes on."""
        return not self._looked

    @property
    def trouble(self) -> str | None:
        """Why the last look found no versions, or None. A model that serves goes on."""
        return self._trouble

    @property
    def refusals(self) -> list[Refusal]:
        """Versions in the folder that may not serve, newest first."""
        return [Refusal(version.number, reason) for version, reason in sorted(self._refused.items(), reverse=True)]

    def require_model(self) -> Model:
        """Return the model that serves.

        Raises:
            NotReadyError: no model serves (yet).
        """
        if self._model is not None:
            return self._model
        seconds = _RETRY_WHILE_STARTING_SECONDS if self.starting else _RETRY_WITHOUT_MODEL_SECONDS
        raise NotReadyError(f"no model serves: {self._reason}", retry_after_seconds=seconds)

    async def refresh(self, settled: Collection[Version] | None = None) -> list[Version]:
        """Look at the folder and let the newest version that may serve take over.

        The folder's content never raises: a version that can't serve is refused, with its reason in the log and in
        `refusals`, and the model that served goes on, even if its own folder was damaged meanwhile.

        Args:
            settled: the versions that an earlier look found. A version that is not among them may still be on its way
                into the folder, and waits for the next look. None loads whatever is there.

        Returns:
            The versions in the folder, newest first.
        """
        loop = asyncio.get_running_loop()
        # Freeing a model keeps its thread for 20 ms. By now most requests that used these models have ended.
        await loop.run_in_executor(self._thread, self._retired.clear)
        try:
            versions = await loop.run_in_executor(self._thread, self._find)
        except (OSError, RefusedVersionError) as error:
            if str(error) != self._trouble:  # log it once, not at every look
                logger.warning("no version to load: %s", error)
            self._trouble = self._reason = str(error)
            self._looked = True
            if isinstance(error, RefusedVersionError):  # the folder could be read, and holds no version
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
            if not passed_over and await self._take(version):
                break
            if self._loaded and version.number == self._loaded.number:
                break  # its files were damaged, but the model in memory is still good
        self._looked = True
        return versions

    @asynccontextmanager
    async def following(self, poll_seconds: float = 0) -> AsyncIterator[None]:
        """Load the model in the background, and follow the folder until the context ends.

        The store looks at the folder every `poll_seconds`, or once if that is 0. Polling works where notifications of
        changes do not: on network volumes and on folders mounted into a container.
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

    async def _take(self, version: Version) -> bool:
        """Load `version` and let it serve, or refuse it; return which."""
        self._reason = f"loading version {version.number}"
        self._unread.discard(version)
        try:
            load = partial(self._load_own, version.folder)
            model = await asyncio.get_running_loop().run_in_executor(self._thread, load)
            if self._model is not None and (difference := _compare(model.metadata, self._model.metadata)):
                self._retired.append(model)
                raise RefusedVersionError(f"{difference}; restart to change")
        except RefusedVersionError as error:
            self._refuse(version, str(error))
            return False
        except (OSError, MemoryError) as error:  # a fault of the volume or the machine, which may pass
            self._unread.add(version)
            self._refuse(version, f"it can't be read now: {error or type(error).__name__}")
            return False
        except Exception as error:  # an older version must still serve
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

    def _find(self) -> list[Version]:
        versions = find_versions(self._folder, self._warn_once)
        if self._pinned is not None:
            versions = [version for version in versions if version.number == self._pinned]
            if not versions:
                raise RefusedVersionError(f"{self._folder} has no version {self._pinned}; APP_MODEL_VERSION pins it")
        return versions

    def _warn_once(self, warning: str) -> None:
        if warning not in self._warnings:
            self._warnings.add(warning)
            logger.warning("%s", warning)

    def _load_own(self, folder: Path) -> Model:
        # Kubernetes and others publish a version by a link from one place in the folder to another.
        if not folder.resolve().is_relative_to(self._folder.resolve()):
            raise RefusedVersionError(f"it is a link out of {self._folder}")
        try:
            return self._load(folder)
        except RefusedVersionError as error:
            reason = str(error)
        # A new error: the traceback of the first holds the model, which the event loop would free.
        raise RefusedVersionError(reason)

    def _refuse(self, version: Version, reason: str) -> None:
        """Record why `version` may not serve; log the reason unless it is known."""
        self._reason = f"version {version.number} was refused: {reason}"
        if self._refused.get(version) == reason:
            return
        self._refused[version] = reason
        logger.error("version %d refused: %s", version.number, reason)
        self._observe("refused")


def _compare(new: ModelMetadata, serving: ModelMetadata) -> str | None:
    """Return what a running service can't change: its clients rely on the classes, images in the queue on the size."""
    if new.input != serving.input:
        return f"it takes {new.input}, the serving version {serving.input}"
    if new.class_names == serving.class_names:
        return None
    changes = {
        "new": [name for name in new.class_names if name not in serving.class_names],
        "gone": [name for name in serving.class_names if name not in new.class_names],
    }
    listed = [f"{change}: {_list(names)}" for change, names in changes.items() if names]
    return f"it has other classes than the serving version ({'; '.join(listed) or 'in another order'})"


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED_NAMES} more" if len(names) > _LISTED_NAMES else ""
    return ", ".join(names[:_LISTED_NAMES]) + more
