"""Decides which version serves: loads the newest valid one beside the serving one, then swaps. Knows no HTTP.

Each poll of the folder (`refresh`) loads a new version, refuses an invalid one, or rolls back if the newest version was
removed.
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
from app.settings import Settings
from app.versions.folder import Version, find_versions
from app.versions.loader import Load, make_loader
from app.versions.model import Model

# Loading a version takes seconds. Adding a missing one takes a person.
_RETRY_WHILE_STARTING_SECONDS = 2
_RETRY_WITHOUT_MODEL_SECONDS = 30
_LISTED_NAMES = 5

Outcome = Literal["loaded", "refused"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refusal:
    """A refused version and the reason."""

    version: int
    reason: str


class ModelStore:
    """Holds the model that serves. All state belongs to the event loop; a thread loads models."""

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
            load: loads and verifies the version in a folder, or raises RefusedVersionError.
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
        self._unreadable: set[Version] = set()  # refused for that; loaded again even if unchanged
        self._model: Model | None = None
        self._retired: list[Model] = []  # models that served before; freed at the next poll
        self._reason = f"looking for a model under {folder}"
        self._trouble: str | None = None
        self._warnings: set[str] = set()  # logged already
        self._has_polled = False

    @property
    def model(self) -> Model | None:
        """The model that serves, if any."""
        return self._model

    @property
    def starting(self) -> bool:
        """Whether the first poll is still running."""
        return not self._has_polled

    @property
    def trouble(self) -> str | None:
        """Why the last poll found no versions; None if it found some. The serving model stays."""
        return self._trouble

    @property
    def refusals(self) -> list[Refusal]:
        """Refused versions in the folder, newest first."""
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
        """Poll the folder once, and swap in the newest valid version.

        No content of the folder makes it raise. It refuses invalid versions, with the reasons in the log and in
        `refusals`. The serving model stays, even if its own folder is damaged.

        Args:
            settled: the versions that the previous poll found. A new or changed one may be incomplete, so it waits for
                the next poll. None loads versions at once.

        Returns:
            The versions in the folder, newest first.
        """
        loop = asyncio.get_running_loop()
        # Freeing a model takes 20 ms, so a thread does it, after most requests that used the model have ended.
        await loop.run_in_executor(self._thread, self._retired.clear)
        try:
            versions = await loop.run_in_executor(self._thread, self._find)
        except (OSError, RefusedVersionError) as error:
            if str(error) != self._trouble:  # log it once, not at every poll
                logger.warning("no version to load: %s", error)
            self._trouble = self._reason = str(error)
            self._has_polled = True
            if isinstance(error, RefusedVersionError):  # the folder is readable and contains no version
                self._refused.clear()
                self._unreadable.clear()
            return []
        self._trouble = None
        self._refused = {version: reason for version, reason in self._refused.items() if version in versions}
        self._unreadable.intersection_update(versions)
        for version in versions:
            if version == self._loaded:
                break
            known_bad = version in self._refused and version not in self._unreadable
            skipped = known_bad or (settled is not None and version not in settled)
            if not skipped and await self._load_and_swap(version):
                break
            if self._loaded and version.number == self._loaded.number:
                break  # its files were damaged, but the model in memory is still good
        self._has_polled = True
        return versions

    @asynccontextmanager
    async def following(self, poll_seconds: float = 0) -> AsyncIterator[None]:
        """Poll the folder in the background, every `poll_seconds` until the context ends, or once if that is 0.

        File notifications don't work on network volumes and bind mounts.
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
                self._has_polled = True
            if not poll_seconds:
                return
            await asyncio.sleep(poll_seconds)

    async def _load_and_swap(self, version: Version) -> bool:
        """Load `version` and swap it in, or refuse it; return whether it serves."""
        self._reason = f"loading version {version.number}"
        self._unreadable.discard(version)
        try:
            load = partial(self._load_inside, version.folder)
            model = await asyncio.get_running_loop().run_in_executor(self._thread, load)
            if self._model is not None and (difference := _compare(model.metadata, self._model.metadata)):
                self._retired.append(model)
                raise RefusedVersionError(f"{difference}; restart the service to change it")
        except RefusedVersionError as error:
            self._refuse(version, str(error))
            return False
        except (OSError, MemoryError) as error:  # a fault of the volume or the machine, perhaps temporary
            self._unreadable.add(version)
            self._refuse(version, f"it can't be read at the moment: {error or type(error).__name__}")
            return False
        except Exception as error:  # an older version can still serve
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

    def _load_inside(self, folder: Path) -> Model:
        """Load a version, unless it is a link out of the model folder. Kubernetes publishes files by links inside."""
        if not folder.resolve().is_relative_to(self._folder.resolve()):
            raise RefusedVersionError(f"it is a link out of {self._folder}")
        try:
            return self._load(folder)
        except RefusedVersionError as error:
            reason = str(error)
        # A new error, because the traceback of the first one refers to the model, which the event loop would then free.
        raise RefusedVersionError(reason)

    def _refuse(self, version: Version, reason: str) -> None:
        """Record why `version` may not serve; log the reason unless it is known."""
        self._reason = f"version {version.number} was refused: {reason}"
        if self._refused.get(version) == reason:
            return
        self._refused[version] = reason
        logger.error("version %d refused: %s", version.number, reason)
        self._observe("refused")


def load_newest(settings: Settings, batch_sizes: Sequence[int]) -> Model:
    """Load the version that a service with these settings would serve, for commands that run without one.

    Raises:
        NotReadyError: there is no valid version; the log has the reasons.
    """
    store = ModelStore(
        settings.model_dir, make_loader(settings, batch_sizes=batch_sizes), pinned=settings.model_version
    )
    asyncio.run(store.refresh())
    return store.require_model()


def _compare(new: ModelMetadata, serving: ModelMetadata) -> str | None:
    """Return a difference that a running service can't accept; None if there is none.

    Clients rely on the classes, and queued images have the size of the serving version.
    """
    if new.input.shape != serving.input.shape:
        return f"it takes images of {_show(new.input.shape)} pixels, the serving version {_show(serving.input.shape)}"
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


def _show(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape[:2]))


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED_NAMES} more" if len(names) > _LISTED_NAMES else ""
    return ", ".join(names[:_LISTED_NAMES]) + more
