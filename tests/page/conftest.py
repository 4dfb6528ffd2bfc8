"""Shared by the browser tests: a service with a fake model, a card and samples, and a real Chromium."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray
from playwright.sync_api import expect, sync_playwright

from app.contract import digest_files
from app.main import create_app
from app.runtime.load import Answers, Images, Probabilities, Runtime
from app.settings import Settings
from app.versions.model import Model
from tests.app.fakes import INPUT, OUTPUT, make_metadata, tell_colours, write_version

PATIENCE = 30_000  # milliseconds, for slow machines
expect.set_options(timeout=PATIENCE)
CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@dataclass
class Service:
    """A service in a thread of this process, with its model's calls."""

    app: FastAPI
    url: str
    predict: Callable[[Images], Probabilities] = tell_colours
    typicality: Callable[[Images], NDArray[np.float32]] | None = None
    version: int = 1


@contextmanager
def serve(models: Path, **settings: object) -> Iterator[Service]:
    """Serve the version under `models` on a free port."""
    folder = models / "tiny" / "1"

    def load(_: Path) -> Model:
        def predict(images: Images) -> Answers:
            return Answers(service.predict(images), service.typicality(images) if service.typicality else None)

        return Model(make_metadata(1, digest_files(folder)), Runtime("fake", "f32", INPUT, OUTPUT, predict), folder)

    app = create_app(Settings(model_dir=models, **settings), load=load)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    service = Service(app, f"http://127.0.0.1:{port}")
    while app.state.classifier.store.starting:
        time.sleep(0.01)
    try:
        yield service
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_version(tmp_path_factory.mktemp("models")).parent.parent


@pytest.fixture(scope="module")
def service(models: Path) -> Iterator[Service]:
    with serve(models, max_queue_size=1, max_upload_bytes=100_000, max_image_pixels=1_000_000) as service:
        yield service


@pytest.fixture(scope="module")
def browser():
    """A real Chromium. Module scope, because asyncio.run does not work while it runs."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Watch:
    """Errors in a page's console, and requests to other sites."""

    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def attach(self, page, url: str) -> None:
        def hear(message) -> None:
            # Chromium reports every rejected request like this. Each test checks its rejections itself.
            if message.type in {"error", "warning"} and "Failed to load resource" not in message.text:
                self.errors.append(message.text)

        page.on("console", hear)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on(
            "request", lambda r: None if r.url.startswith((url, "blob:", "data:")) else self.elsewhere.append(r.url)
        )


@pytest.fixture
def open_page(browser, service: Service):
    """Open a path of the service in a new browser context; fail if the page had faults."""
    contexts = []
    watch = Watch()

    def open_page(path: str = "/", url: str = service.url, **options: object):
        context = browser.new_context(**options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        watch.attach(page, url)
        page.goto(url + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    service.predict, service.typicality = tell_colours, None
    assert watch == Watch()
