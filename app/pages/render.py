"""HTML from the templates in app/web, with the headers that every page has."""

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


def render(request: Request, template: str, status: int = 200, **values: object) -> HTMLResponse:
    """Fill in `template` for whoever made `request`."""
    html = _templates.get_template(template).render(root=get_root(request.scope), **values)
    return HTMLResponse(html, status, {**HEADERS, "Content-Security-Policy": CONTENT_POLICY})


def show_percent(share: float) -> str:
    """Write a probability as a person would say it; never a certainty that it is not."""
    percent = round(100 * share)
    if percent in {0, 100}:
        return "<\u00a01\u00a0%" if percent == 0 else ">\u00a099\u00a0%"
    return f"{percent}\u00a0%"


def format_json(reply: object) -> str:
    """Write a reply for people: each innermost object on one line."""
    text = json.dumps(reply, indent=2, ensure_ascii=False)
    return _INNERMOST.sub(lambda found: "{ " + " ".join(line.strip() for line in found[1].split("\n")) + " }", text)


_templates.filters["percent"] = show_percent
