"""Reads the model card and its plots from a version's folder, and renders the card as HTML. Knows no HTTP.

It only returns files whose digest is the one in the metadata, so other files and changed files stay private.
"""

import hashlib

from markdown_it import MarkdownIt

from app.contract import CARD_FOLDER
from app.versions.model import Model

MAX_CARD_BYTES = 8 * 2**20
CARD_FILE = "README.md"


def read_card_file(model: Model, name: str) -> bytes | None:
    """Return a file of the model card; None if it is missing or differs from the metadata."""
    path = f"{CARD_FOLDER}/{name}"
    digest = model.metadata.files.get(path)
    if digest is None or model.folder is None:
        return None
    try:
        with (model.folder / path).open("rb") as file:
            data = file.read(MAX_CARD_BYTES)
    except OSError:  # the version was removed; it serves until the next poll
        return None
    return data if hashlib.sha256(data).hexdigest() == digest else None


def render_markdown(text: str) -> str:
    """Render Markdown as HTML. HTML in it stays text, and links can't be scripts."""
    parser = MarkdownIt("commonmark", {"html": False, "typographer": True}).enable(["table", "replacements"])
    tokens = parser.parse(text)
    for token in tokens:
        token.attrs.pop("style", None)  # column alignment, which the content security policy blocks
    html: str = parser.renderer.render(tokens, parser.options, {})
    # Wide elements scroll instead of widening the page. They need a tabindex to scroll by keyboard.
    return (
        html.replace("<pre>", '<pre tabindex="0">')
        .replace("<table>", '<div class="wide" role="group" aria-label="Table" tabindex="0"><table>')
        .replace("</table>", "</table></div>")
    )
