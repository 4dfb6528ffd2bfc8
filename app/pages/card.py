"""What a version's folder holds for people: the model card, as HTML, and its plots.

Only files that the metadata names are given out, and only while they are what the metadata says: whatever else lies in
the folder, or replaces a file, stays unseen. Knows no web.
"""

import hashlib
from functools import lru_cache

from markdown_it import MarkdownIt

from app.contract import CARD_FOLDER
from app.versions.model import Model

MAX_CARD_BYTES = 8 * 2**20
CARD_FILE = "README.md"


def read_card_file(model: Model, name: str) -> bytes | None:
    """Return one file of the card of `model`; None if there is none that is what the metadata names."""
    path = f"{CARD_FOLDER}/{name}"
    digest = model.metadata.files.get(path)
    if digest is None or model.folder is None:
        return None
    try:
        with (model.folder / path).open("rb") as file:
            data = file.read(MAX_CARD_BYTES)
    except OSError:  # the version has been removed; it serves until the next look at the folder
        return None
    return data if hashlib.sha256(data).hexdigest() == digest else None


@lru_cache(maxsize=2)
def render_markdown(text: str) -> str:
    """Turn the card's Markdown into HTML. HTML in it stays text; a link can't be a script."""
    parser = MarkdownIt("commonmark", {"html": False, "typographer": True}).enable(["table", "replacements"])
    tokens = parser.parse(text)
    for token in tokens:
        token.attrs.pop("style", None)  # a column's alignment, which the page's content policy blocks
    html: str = parser.renderer.render(tokens, parser.options, {})
    # What is wide scrolls by itself instead of widening the page; the keyboard must reach it to scroll it.
    return (
        html.replace("<pre>", '<pre tabindex="0">')
        .replace("<table>", '<div class="wide" role="group" aria-label="Table" tabindex="0"><table>')
        .replace("</table>", "</table></div>")
    )
