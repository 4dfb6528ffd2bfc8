"""Makes HTML pages from the templates in `web/templates`."""

import json
import re
from pathlib import Path

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request

from app.http.paths import get_root

WEB = Path(__file__).with_name("web")
STATIC = WEB / "static"
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {"Cache-Control": "no-cache"}
_INNERMOST = re.compile(r"\{\n\s+([^{}]*?)\n\s+\}")

_templates = Environment(
    loader=FileSystemLoader(WEB / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def fill_in(template: str, *, root: str, **values: object) -> str:
    """Return the HTML of `template`, whose links start with `root`."""
    return _templates.get_template(template).render(root=root, **values)


def make_page(html: str | bytes, status: int = 200) -> HTMLResponse:
    """Make a response of HTML."""
    return HTMLResponse(html, status, {**HEADERS, "Content-Security-Policy": CONTENT_POLICY})


def render(request: Request, template: str, status: int = 200, **values: object) -> HTMLResponse:
    """Answer `request` with a template."""
    return make_page(fill_in(template, root=get_root(request.scope), **values), status)


def show_percent(share: float) -> str:
    """Write a probability for people. Only an exact 0 or 1 would be certain, so those are never shown."""
    percent = round(100 * share)
    if percent in {0, 100}:
        return "<\u00a01\u00a0%" if percent == 0 else ">\u00a099\u00a0%"
    return f"{percent}\u00a0%"


def format_json(reply: object) -> str:
    """Write JSON for people, with each innermost object on one line."""
    text = json.dumps(reply, indent=2, ensure_ascii=False)
    return _INNERMOST.sub(lambda found: "{ " + " ".join(line.strip() for line in found[1].split("\n")) + " }", text)


_templates.filters["percent"] = show_percent
