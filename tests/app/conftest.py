"""Shared by the service's tests: services with a fake model, and a tiny real SavedModel."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from app.errors import RefusedVersionError
from app.main import create_app
from app.runtime.load import Images, Probabilities
from app.server.lifecycle import Server, make_server
from app.server.listeners import bind
from app.settings import Settings
from tests.app.artifacts import load_version
from tests.app.fakes import INPUT, make_model, seal, tell_colours, wait_until_loaded
from tests.app.process import Process


@pytest.fixture
def anyio_backend() -> str:
    """Run tests marked `anyio` with asyncio only, which is what the service uses."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_caching(monkeypatch: pytest.MonkeyPatch) -> None:
    """Render pages and metrics for every request. test_cache.py tests the cache."""
    monkeypatch.setattr("app.http.cache.SECONDS", 0)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A model folder with one version, which is an empty folder."""
    (tmp_path / "models" / "tiny" / "1").mkdir(parents=True)
    return tmp_path / "models"


@pytest.fixture
def make_client(models: Path) -> Iterator[Callable[..., TestClient]]:
    """Start services with a fake model; takes the model's functions, and settings."""
    clients = []

    def start(
        predict: Callable[[Images], Probabilities] = tell_colours,
        typicality: Callable[[Images], NDArray[np.float32]] | None = None,
        **settings: object,
    ) -> TestClient:
        app = create_app(
            Settings(model_dir=models, **settings), load=lambda _: make_model(predict, typicality=typicality)
        )
        client = TestClient(app, raise_server_exceptions=False)
        client.__enter__()
        clients.append(client)
        wait_until_loaded(client)
        return client

    yield start
    for client in clients:
        client.__exit__()


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    return make_client()


@pytest.fixture
def serve(models: Path) -> Iterator[Callable[..., Server]]:
    """Start servers with a fake model in threads; takes the model's function, and settings."""
    running = []

    def start(predict: Callable[[Images], Probabilities] = tell_colours, **options: object) -> Server:
        settings = Settings(model_dir=models, port=0, drain_seconds=0, header_timeout_seconds=5, **options)
        app = create_app(settings, load=lambda *_, **__: make_model(predict))
        server = make_server(app, settings)
        thread = threading.Thread(target=server.run, args=(bind(settings.host, settings.port),))
        thread.start()
        running.append((server, thread))
        while not server.started or app.state.classifier.store.starting:
            time.sleep(0.01)
        return server

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def serving(serve: Callable[..., Server]) -> Server:
    return serve()


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Start server processes with these settings. They end with the test."""
    processes = []

    def start(**settings: object) -> Process:
        processes.append(Process(**settings))
        return processes[-1]

    yield start
    for process in processes:
        process.end()


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real version, tiny/1, whose probabilities follow the mean colour. Copy it before changing it."""
    import tensorflow as tf  # noqa: PLC0415 -- takes seconds, and most tests don't need it

    class Tiny(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = tf.Variable(10 * np.eye(3, dtype=np.float32))

        @tf.function(input_signature=[tf.TensorSpec((None, *INPUT.shape), tf.uint8, name="images")])
        def serve(self, images):
            means = tf.reduce_mean(tf.cast(images, tf.float32) / 255, axis=(1, 2))
            return {"probabilities": tf.nn.softmax(means @ self.weights)}

    folder = tmp_path_factory.mktemp("exported") / "tiny" / "1"
    module = Tiny()
    tf.saved_model.save(module, folder, signatures={"serving_default": module.serve})
    images = np.random.default_rng(0).integers(0, 256, (16, *INPUT.shape), dtype=np.uint8)
    images[:3] = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)[:, None, None, :]
    np.savez(folder / "golden.npz", images=images, probabilities=module.serve(images)["probabilities"].numpy())
    seal(folder)
    return folder


@pytest.fixture
def version(exported: Path, tmp_path: Path) -> Path:
    """A copy of the real version, for tests that damage it."""
    return Path(shutil.copytree(exported, tmp_path / "real" / "tiny" / "1"))


@pytest.fixture
def refuse(version: Path) -> Callable[[str], None]:
    """Load the damaged version with each runtime, and check that it is refused for this reason."""

    def check(reason: str) -> None:
        for name in ("openvino", "tensorflow"):
            with pytest.raises(RefusedVersionError, match=reason):
                load_version(version, name)

    return check
