"""Behaviour of app.versions.store: versions that are refused or can't be read."""

from pathlib import Path

import pytest

from app.contract import TensorSpec
from app.errors import RefusedVersionError
from app.versions.model import Model
from app.versions.store import ModelStore
from tests.app.fakes import make_model
from tests.app.versions.fake_versions import Loader, add, get_version

pytestmark = pytest.mark.anyio


async def test_an_older_version_serves_if_newer_ones_are_refused(tmp_path, caplog):
    """Each refusal has its reason. If it is a bug in loading, the log has a traceback too."""
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


async def test_the_old_version_continues_if_a_new_one_is_refused(tmp_path):
    """The new one is tried once, and again when its files change."""
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
async def test_an_unreadable_version_is_tried_again(tmp_path, caplog, trouble):
    """A failing volume logs one line, and the version serves as soon as it can be read."""
    add(tmp_path, 1)
    load, outcomes = Loader(), []
    store = ModelStore(tmp_path, load, observe=outcomes.append)
    await store.refresh()
    add(tmp_path, 2)
    load.trouble = trouble
    for _ in range(5):
        await store.refresh()
    assert get_version(store) == 1
    assert store.refusals[0].reason.startswith("it can't be read at the moment: ")
    assert (len(caplog.records), outcomes) == (1, ["loaded", "refused"])
    assert "Traceback" not in caplog.text
    load.trouble = None
    await store.refresh()
    assert (get_version(store), store.refusals) == (2, [])
    assert load.loaded == [1, *[2] * 6]


async def test_a_version_that_was_unreadable_can_still_be_refused(tmp_path):
    """It is then not tried again until its files change."""
    add(tmp_path, 1)
    load = Loader()
    store = ModelStore(tmp_path, load)
    for trouble in (OSError(5, "Input/output error"), RefusedVersionError("wrong digest"), None):
        load.trouble = trouble
        await store.refresh()
    assert load.loaded == [1, 1]
    assert store.refusals[0].reason == "wrong digest"


async def test_a_version_with_another_input_shape_is_refused(tmp_path):
    """Images that were decoded for the old version could not run on the new one."""
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
    reason = "it takes images of 16 x 6 pixels, the serving version 8 x 6; restart the service to change it"
    assert store.refusals[0].reason == reason


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("red", "green", "food", "vehicle"), "(new: food, vehicle; gone: blue)"),
        (("red", "green"), "(gone: blue)"),
        (("green", "red", "blue"), "(in another order)"),
        (tuple("abcdefg"), "(new: a, b, c, d, e and 2 more; gone: red, green, blue)"),
    ],
)
async def test_a_version_with_other_classes_is_refused(tmp_path, names, reason):
    """Clients rely on the labels and their order. A service that starts accepts them."""
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
    assert refusal.reason == f"it has other classes than the serving version {reason}; restart the service to change it"
    store = ModelStore(tmp_path, load)
    await store.refresh()
    assert (get_version(store), store.refusals) == (2, [])
