"""Behaviour of app.versions.store."""

import asyncio
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

pytestmark = pytest.mark.anyio


class Loader:
    """Loads a folder by its name, unless it holds a file `bad` with the reason why not."""

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


async def test_the_model_before_is_freed_by_no_thread_that_serves(tmp_path):
    """Freeing takes milliseconds, in which the event loop would answer nobody."""
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


async def test_a_refused_model_is_freed_by_no_thread_that_serves(tmp_path):
    """Nor is one whose input differs from the serving model's."""
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


async def test_a_folder_that_can_not_be_followed_is_reported(tmp_path):
    """The serving model goes on; refusals of versions that are gone are dropped."""
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


async def test_the_newest_version_serves(tmp_path):
    """Ten is newer than nine, and only the newest is loaded."""
    for number in (9, 10, 2):
        add(tmp_path, number)
    load = Loader()
    store = ModelStore(tmp_path, load)
    await store.refresh()
    assert get_version(store) == 10
    assert load.loaded == [10]


async def test_an_older_version_serves_where_newer_ones_are_refused(tmp_path, caplog):
    """Each refusal has its reason; that of a bug in loading has a traceback in the log too."""
    add(tmp_path, 1)
    add(tmp_path, 2, "bad", "wrong digest")
    add(tmp_path, 3, "bug")
    store = ModelStore(tmp_path, Loader())
    await store.refresh()
    assert get_version(store) == 1
    assert [(refusal.version, refusal.reason) for refusal in store.refusals] == [
        (3, "ZeroDivisionError: "),
        (2, "wrong digest"),
    ]
    assert [bool(record.exc_info) for record in caplog.records if record.levelname == "ERROR"] == [True, False, False]


async def test_a_new_version_is_taken_and_the_old_one_not_loaded_again(tmp_path):
    """Another look at an unchanged folder loads nothing."""
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


async def test_a_bad_new_version_leaves_the_old_one_serving(tmp_path):
    """It is tried once, and again when its files change."""
    add(tmp_path, 1)
    load = Loader()
    store = ModelStore(tmp_path, load)
    await store.refresh()
    folder = add(tmp_path, 2, "bad", "half written")
    await store.refresh()
    await store.refresh()
    assert get_version(store) == 1
    assert load.loaded == [1, 2]
    assert store.refusals[0].reason == "half written"
    (folder / "bad").unlink()
    await store.refresh()
    assert get_version(store) == 2
    assert store.refusals == []


@pytest.mark.parametrize("trouble", [OSError(5, "Input/output error"), PermissionError(13, "no"), MemoryError()])
async def test_what_can_not_be_read_now_is_tried_again(tmp_path, caplog, trouble):
    """A failing volume does not make a bad version: one line in the log, and it serves as soon as it can be read."""
    add(tmp_path, 1)
    load, outcomes = Loader(), []
    store = ModelStore(tmp_path, load, observe=outcomes.append)
    await store.refresh()
    add(tmp_path, 2)
    load.trouble = trouble
    for _ in range(5):
        await store.refresh()
    assert get_version(store) == 1
    assert store.refusals[0].reason.startswith("it can't be read now: ")
    assert (len(caplog.records), outcomes) == (1, ["loaded", "refused"])
    assert "Traceback" not in caplog.text
    load.trouble = None
    await store.refresh()
    assert (get_version(store), store.refusals) == (2, [])
    assert load.loaded == [1, *[2] * 6]


async def test_a_version_that_could_be_read_at_last_is_refused_for_good(tmp_path):
    """If it turns out to be bad, it is not tried again until its files change."""
    add(tmp_path, 1)
    load = Loader()
    store = ModelStore(tmp_path, load)
    for trouble in (OSError(5, "Input/output error"), RefusedVersionError("wrong digest"), None):
        load.trouble = trouble
        await store.refresh()
    assert load.loaded == [1, 1]
    assert store.refusals[0].reason == "wrong digest"


async def test_a_version_may_be_a_link_only_within_the_folder(tmp_path):
    """Kubernetes publishes versions by links. A link out of the folder is refused, and not followed."""
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
    """Removing all of them leaves the last one serving."""
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


async def test_another_input_shape_is_refused_while_one_serves(tmp_path):
    """Images decoded for the old version could not be run by the new one."""
    add(tmp_path, 1)

    def load(folder: Path) -> Model:
        model = make_model(version=int(folder.name))
        shape = (8 * model.metadata.version, 6, 3)
        spec = TensorSpec(name="images", dtype="uint8", shape=shape)
        return Model(model.metadata.model_copy(update={"input": spec}), model.runtime)

    store = ModelStore(tmp_path, load)
    await store.refresh()
    add(tmp_path, 2)
    await store.refresh()
    assert get_version(store) == 1
    assert "restart to change" in store.refusals[0].reason


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("red", "green", "food", "vehicle"), "(new: food, vehicle; gone: blue)"),
        (("red", "green"), "(gone: blue)"),
        (("green", "red", "blue"), "(in another order)"),
        (tuple("abcdefg"), "(new: a, b, c, d, e and 2 more; gone: red, green, blue)"),
    ],
)
async def test_other_classes_are_refused_while_one_serves(tmp_path, names, reason):
    """Clients rely on the labels and on their order; a service that starts takes them."""
    add(tmp_path, 1)

    def load(folder: Path) -> Model:
        model = make_model(version=int(folder.name))
        if folder.name == "1":
            return model
        return Model(model.metadata.model_copy(update={"class_names": names}), model.runtime)

    store = ModelStore(tmp_path, load)
    await store.refresh()
    add(tmp_path, 2)
    await store.refresh()
    assert get_version(store) == 1
    [refusal] = store.refusals
    assert refusal.reason == f"it has other classes than the serving version {reason}; restart to change"
    store = ModelStore(tmp_path, load)
    await store.refresh()
    assert (get_version(store), store.refusals) == (2, [])


async def test_a_pinned_version_serves_whichever_others_come(tmp_path):
    """Neither a newer one nor, if it is bad, an older one takes its place."""
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


async def test_a_pinned_version_that_is_missing_is_named(tmp_path):
    """It is loaded as soon as it comes."""
    add(tmp_path, 1)
    store = ModelStore(tmp_path, Loader(), pinned=2)
    await store.refresh()
    with pytest.raises(NotReadyError, match="has no version 2; APP_MODEL_VERSION pins it"):
        store.require_model()
    add(tmp_path, 2)
    await store.refresh()
    assert get_version(store) == 2


async def test_without_any_version_the_reason_says_where_it_looked(tmp_path):
    """For a missing folder, an empty one, and one with several models."""
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


async def test_a_bad_neighbour_is_logged_once(tmp_path, caplog):
    """However often the folder is looked at, and although nothing is wrong with the version that serves."""
    add(tmp_path, 1)
    (tmp_path / "tiny" / "7").symlink_to("nowhere")
    store = ModelStore(tmp_path, Loader())
    for _ in range(3):
        await store.refresh()
    assert get_version(store) == 1
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        f"{tmp_path}/tiny/7 is skipped: not a folder"
    ]


async def test_loading_blocks_nothing(tmp_path):
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


async def test_following_takes_what_comes_and_goes(tmp_path):
    """A new version serves without a restart; the one before it serves again when the new one is removed."""
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


async def test_following_survives_a_folder_that_comes_late(tmp_path):
    """A volume may be mounted later."""
    store = ModelStore(tmp_path / "late", Loader())
    async with store.following(0.005):
        while store.starting:
            await asyncio.sleep(0.001)
        add(tmp_path / "late", 1)
        await wait_for(store, 1)


async def test_a_version_that_still_changes_is_left_alone(tmp_path):
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


async def test_a_serving_version_whose_folder_is_spoiled_goes_on(tmp_path):
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
