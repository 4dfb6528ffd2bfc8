"""Takes the picture of the web page for README.md: `python -m benchmarks.screenshot`.

A service must listen on localhost:8000. The photograph is tests/data/cat.png (CC0).
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Error, sync_playwright

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "tests" / "data" / "cat.png"
TARGET = ROOT / "docs" / "page.png"
SIZE = (1040, 1000)
COLORS = 256  # enough for the page and its photographs, in a third of the bytes


def main(url: str = "http://localhost:8000/") -> None:
    """Classify the photograph on the page at `url`, and take a screenshot."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"],
        )
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="light")
        try:
            page.goto(url)
        except Error as error:
            sys.exit(f"no service at {url}: {error.message.splitlines()[0]}")
        page.set_input_files("#file", PICTURE)
        page.wait_for_selector("#shown .label")
        height = page.evaluate("document.querySelector('#results').getBoundingClientRect().bottom + scrollY + 24")
        taken = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": SIZE[0], "height": height})
        browser.close()
    picture = Image.open(io.BytesIO(taken)).convert("RGB").quantize(COLORS)
    picture.save(TARGET, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
