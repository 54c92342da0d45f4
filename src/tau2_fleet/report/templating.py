"""The templates of HTML pages that need no network: the report, and the comparison in its style."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from tau2_fleet.telemetry.secrets import redact

_TEMPLATES = Path(__file__).parent / "templates"


def environment() -> Any:
    """The Jinja environment of the pages: it escapes everything, and has the filters `inline` and `plain`."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["inline"] = Markup
    environment.filters["plain"] = _plain
    return environment


def _plain(text: Any) -> str:
    """Text without control characters and marks that turn its direction."""
    turning = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    return "".join(sign for sign in redact(str(text)) if sign.isprintable() and sign not in turning)


def template_text(name: str) -> str:
    """A file beside the templates, such as the style sheet."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def policy_digest(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
