"""Behaviour of app.versions.store: polling the model folder."""

import asyncio
import threading
from pathlib import Path

import pytest

from app.errors import NotReadyError
from app.versions.model import Model
from app.versions.store import ModelStore
from tests.app.fakes import make_model
from tests.app.versions.fake_versions import Loader, add, get_version

pytestmark = pytest.mark.anyio


async def test_an_unreadable_model_folder_is_reported(tmp_path):
    """The serving model continues, and refusals of versions that are gone are dropped."""
    add(tmp_path, 1)
    add(tmp_path, 2, "bad", "half written")
    store = ModelStore(tmp_path, Loader())
    await store.refresh()
    assert (len(store.refusals), store.trouble) == (1, None)
    (tmp_path / "tiny").rename(tmp_path / ".tiny")
    await store.refresh()
    assert (get_version(store), store.refusals) == (1, [])
    assert "contains no version" in store.trouble
    (tmp_path / ".tiny").rename(tmp_path / "tiny")
    await store.refresh()
    assert (len(store.refusals), store.trouble) == (1, None)


async def test_loading_does_not_block(tmp_path):
    """The store answers while a version loads, and shutdown does not wait for it."""
    add(tmp_path, 1)
    reached, opened = threading.Event(), threading.Event()

    def load(_: Path) -> Model:
        reached.set()
        assert opened.wait(10)
        return make_model()

    store = ModelStore(tmp_path, load)
    async with store.following():
        while not reached.is_set():
            await asyncio.sleep(0.001)
        with pytest.raises(NotReadyError, match="loading version 1") as error:
            store.require_model()
        assert error.value.retry_after_seconds == 2
    opened.set()


async def wait_for(store: ModelStore, number: int) -> None:
    async with asyncio.timeout(10):
        while not store.model or get_version(store) != number:
            await asyncio.sleep(0.001)


async def test_versions_are_added_and_removed_without_a_restart(tmp_path):
    """A new version serves; the one before it serves again when the new one is removed."""
    add(tmp_path, 1)
    outcomes = []
    store = ModelStore(tmp_path, Loader(), observe=outcomes.append)
    async with store.following(0.005):
        await wait_for(store, 1)
        newest = add(tmp_path, 2)
        await wait_for(store, 2)
        newest.rename(tmp_path / "away")
        await wait_for(store, 1)
        add(tmp_path, 3, "bad", "no good")
        async with asyncio.timeout(10):
            while not store.refusals:
                await asyncio.sleep(0.001)
    assert outcomes == ["loaded", "loaded", "loaded", "refused"]


async def test_the_model_folder_may_appear_later(tmp_path):
    """For example if a volume is mounted late."""
    store = ModelStore(tmp_path / "late", Loader())
    async with store.following(0.005):
        while store.starting:
            await asyncio.sleep(0.001)
        add(tmp_path / "late", 1)
        await wait_for(store, 1)


async def test_a_version_is_not_loaded_while_its_files_change(tmp_path):
    """A version that is being copied is tried once its files have stopped changing."""
    add(tmp_path, 1)
    load = Loader()
    store = ModelStore(tmp_path, load)
    seen = await store.refresh()
    for file in ("first", "second"):
        add(tmp_path, 2, file)
        seen = await store.refresh(seen)
        assert (get_version(store), load.loaded) == (1, [1])
    await store.refresh(seen)
    assert (get_version(store), load.loaded) == (2, [1, 2])


async def test_a_serving_version_continues_if_its_files_are_damaged(tmp_path):
    """The model in memory was verified, and an older version is no better."""
    add(tmp_path, 1)
    add(tmp_path, 2)
    load = Loader()
    store = ModelStore(tmp_path, load)
    seen = await store.refresh()
    add(tmp_path, 2, "bad", "digest differs")
    for _ in range(3):
        seen = await store.refresh(seen)
        assert get_version(store) == 2
    assert load.loaded == [2, 2]
    assert store.refusals[0].reason == "digest differs"
