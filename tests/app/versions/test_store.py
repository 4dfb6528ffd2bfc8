"""Behaviour of app.versions.store: the version that serves."""

import threading
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from app.contract import TensorSpec
from app.errors import NotReadyError, RefusedVersionError
from app.versions.model import Model
from app.versions.store import ModelStore
from tests.app.fakes import make_model
from tests.app.versions.fake_versions import Loader, add, get_version

pytestmark = pytest.mark.anyio


async def test_a_replaced_model_is_freed_by_the_loaders_thread(tmp_path):
    """Freeing takes milliseconds, which would block the event loop."""
    freed: list[str] = []
    add(tmp_path, 1)
    store = ModelStore(tmp_path, Loader())
    await store.refresh()
    weakref.finalize(store.require_model(), lambda: freed.append(threading.current_thread().name))
    add(tmp_path, 2)
    await store.refresh()
    assert (get_version(store), freed) == (2, [])
    await store.refresh()
    assert freed == ["model-loader_0"]


async def test_a_refused_model_is_freed_by_the_loaders_thread(tmp_path):
    """So is one whose input differs from the serving model's."""
    freed: list[str] = []

    def load(folder: Path) -> Model:
        model = make_model(version=int(folder.name))
        if folder.name == "3":
            other = TensorSpec(name="images", dtype="uint8", shape=(9, 9, 3))
            model = replace(model, metadata=model.metadata.model_copy(update={"input": other}))
        if folder.name != "1":
            weakref.finalize(model, lambda: freed.append(threading.current_thread().name))
        if folder.name == "2":
            raise RefusedVersionError("wrong golden answers")
        return model

    store = ModelStore(tmp_path, load)
    for number in (1, 2, 3):
        add(tmp_path, number)
        await store.refresh()
    await store.refresh()
    assert (get_version(store), len(store.refusals)) == (1, 2)
    assert freed == ["model-loader_0"] * 2


async def test_the_newest_version_serves(tmp_path):
    """By number: ten is newer than nine. Older versions are not loaded."""
    for number in (9, 10, 2):
        add(tmp_path, number)
    load = Loader()
    store = ModelStore(tmp_path, load)
    await store.refresh()
    assert get_version(store) == 10
    assert load.loaded == [10]


async def test_a_new_version_takes_over(tmp_path):
    """Reading an unchanged folder again loads nothing."""
    add(tmp_path, 1)
    load = Loader()
    store = ModelStore(tmp_path, load)
    await store.refresh()
    await store.refresh()
    add(tmp_path, 2)
    await store.refresh()
    await store.refresh()
    assert get_version(store) == 2
    assert load.loaded == [1, 2]


async def test_a_version_may_be_a_link_only_within_the_folder(tmp_path):
    """Kubernetes publishes versions as links. A link that leaves the folder is refused and not followed."""
    models = tmp_path / "models"
    add(models, 1)
    real = add(models, 2).rename(models / "tiny" / "..data")
    (models / "tiny" / "2").symlink_to(real.name)
    load = Loader()
    store = ModelStore(models, load)
    await store.refresh()
    assert get_version(store) == 2
    outside = add(tmp_path / "elsewhere", 3)
    (models / "tiny" / "3").symlink_to(outside)
    await store.refresh()
    assert get_version(store) == 2
    assert [refusal.version for refusal in store.refusals] == [3]
    assert "a link out of" in store.refusals[0].reason
    assert load.loaded == [2]


async def test_removing_the_newest_version_rolls_back(tmp_path):
    """If no version is left, the last one continues to serve."""
    add(tmp_path, 1)
    newest = add(tmp_path, 2)
    store = ModelStore(tmp_path, Loader())
    await store.refresh()
    (newest / "good").unlink()
    newest.rmdir()
    await store.refresh()
    assert get_version(store) == 1
    add(tmp_path, 1).rename(tmp_path / "away")
    await store.refresh()
    assert get_version(store) == 1


async def test_a_pinned_version_is_not_replaced(tmp_path):
    """Neither by a newer version nor, if it is bad, by an older one."""
    for number in (1, 2, 3):
        add(tmp_path, number)
    load = Loader()
    store = ModelStore(tmp_path, load, pinned=2)
    await store.refresh()
    add(tmp_path, 4)
    await store.refresh()
    assert (get_version(store), load.loaded) == (2, [2])
    add(tmp_path, 2, "bad", "wrong digest")
    store = ModelStore(tmp_path, load, pinned=2)
    await store.refresh()
    with pytest.raises(NotReadyError, match="version 2 was refused: wrong digest"):
        store.require_model()


async def test_a_missing_pinned_version_is_reported(tmp_path):
    """It is loaded when it appears."""
    add(tmp_path, 1)
    store = ModelStore(tmp_path, Loader(), pinned=2)
    await store.refresh()
    with pytest.raises(NotReadyError, match="has no version 2; APP_MODEL_VERSION pins it"):
        store.require_model()
    add(tmp_path, 2)
    await store.refresh()
    assert get_version(store) == 2


async def test_without_a_version_the_reason_names_the_folder(tmp_path):
    """A missing folder, an empty one, and one with several models."""
    store = ModelStore(tmp_path / "none", Loader())
    with pytest.raises(NotReadyError, match="looking for a model"):
        store.require_model()
    assert store.starting
    for folder, reason in ((tmp_path / "none", "is not a folder"), (tmp_path, "expected .*/<name>/<version>/")):
        store = ModelStore(folder, Loader())
        await store.refresh()
        assert not store.starting
        with pytest.raises(NotReadyError, match=reason):
            store.require_model()
    add(tmp_path, 1)
    (tmp_path / "other" / "1").mkdir(parents=True)
    store = ModelStore(tmp_path, Loader())
    await store.refresh()
    with pytest.raises(NotReadyError, match=r"several models \(other, tiny\)"):
        store.require_model()


async def test_an_ignored_file_is_logged_once(tmp_path, caplog):
    """However often the folder is polled."""
    add(tmp_path, 1)
    (tmp_path / "tiny" / "7").symlink_to("nowhere")
    store = ModelStore(tmp_path, Loader())
    for _ in range(3):
        await store.refresh()
    assert get_version(store) == 1
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        f"{tmp_path}/tiny/7 is skipped: not a folder"
    ]
