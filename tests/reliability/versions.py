"""Adds versions while a service runs."""

import asyncio
import json
import shutil
from pathlib import Path

from app.contract import METADATA_FILE
from tests.reliability.load import Client

POLL_SECONDS = 0.05


def copy_version(folder: Path, number: int, into: Path | None = None) -> Path:
    """Copy a version under another number, beside it or `into` another folder: written aside, then renamed."""
    into = into or folder.parent
    aside = Path(shutil.copytree(folder, into / f".writing-{number}"))
    metadata = json.loads((aside / METADATA_FILE).read_text())
    (aside / METADATA_FILE).write_text(json.dumps({**metadata, "version": number}))
    return aside.rename(into / str(number))


async def wait_for_version(client: Client, number: int) -> None:
    async with asyncio.timeout(120):
        while (await client.ask("GET", "/health")).json()["model"]["version"] != number:
            await asyncio.sleep(0.01)
