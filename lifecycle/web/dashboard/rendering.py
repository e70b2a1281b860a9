"""From a template and its values to a page, and how values are shown."""

import hashlib
import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

import lifecycle
from lifecycle import states
from lifecycle.web.access import CSRF_FIELD, TENANT_COOKIE, csrf_token
from lifecycle.web.dashboard.viewer import Viewer

PREFIX: Final = "/dashboard"
# Of fewer than so many, the next smaller unit says something too.
_FEW: Final = 3
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def page(request: Request, viewer: Viewer | None, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page as a response. What every page shows, who looks at it above all, need not be passed."""
    known = {
        "viewer": viewer,
        "csrf": "" if viewer is None else csrf_token(request, viewer.caller),
        "here": request.url.path.removeprefix(PREFIX),
        "now": datetime.now(UTC),
    }
    response = HTMLResponse(environment().get_template(template).render(known | values), status)
    if viewer is not None and viewer.of_all and TENANT_COOKIE not in request.cookies:
        remember_tenant(response, viewer, "*")
    return response


def remember_tenant(response: Response, viewer: Viewer, tenant: str) -> None:
    """Have the browser name a tenant with whatever it asks for: the stream of events cannot send a header."""
    secure = viewer.service.settings.web.secure_cookies
    response.set_cookie(TENANT_COOKIE, quote(tenant, safe="*"), secure=secure, httponly=True, samesite="strict")


@cache
def environment() -> Environment:
    """The templates, with everything that they put into a page escaped."""
    made = Environment(
        loader=PackageLoader("lifecycle.web.dashboard"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {
        "ago": ago,
        "compact": compact,
        "json": json.dumps,
        "number": number,
        "seconds": duration,
    }
    made.globals |= {
        "asset": asset,
        "link": link,
        "of_session": of_session,
        "csrf_field": CSRF_FIELD,
        "release": lifecycle.__version__,
        "session_states": states.STATES,
    }
    return made


def link(path: str, **query: Any) -> str:
    """The address of a page; what is None or empty is left out of its query."""
    given = {name: value for name, value in query.items() if value not in {None, ""}}
    return f"{PREFIX}{path}" + (f"?{urlencode(given)}" if given else "")


def of_session(session: Any, path: str = "/session", **more: Any) -> str:
    """The address of a session's page.

    Its id travels in the query: in a path, browsers would take `..` and empty parts out of it.
    """
    return link(path, id=session.session_id, tenant=session.tenant, **more)


@cache
def asset(name: str) -> str:
    """The address of a static file, which changes with its content."""
    content = (Path(__file__).parent / "static" / name).read_bytes()
    return f"{PREFIX}/static/{name}?v={hashlib.blake2b(content, digest_size=6).hexdigest()}"


def ago(at: datetime, now: datetime) -> str:
    """How long ago a time is, or how far ahead, in its largest unit."""
    seconds = (now - at).total_seconds()
    if abs(seconds) < 1:
        return "now"
    text = duration(abs(seconds))
    return f"{text} ago" if seconds > 0 else f"in {text}"


def duration(seconds: float) -> str:
    """Seconds in their largest unit, and the next one where that says more."""
    whole = int(seconds)
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for index, (size, unit) in enumerate(_UNITS):
        if whole >= size:
            count, rest = divmod(whole, size)
            if count < _FEW and index + 1 < len(_UNITS) and rest >= _UNITS[index + 1][0]:
                smaller, name = _UNITS[index + 1]
                return f"{count} {unit} {rest // smaller} {name}"
            return f"{count} {unit}"
    return "0 s"


def number(value: float) -> str:
    """A number with its thousands set apart."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def compact(value: float) -> str:
    """A number short enough for an axis: 12k, 1.5M."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:.1f}".rstrip("0").rstrip(".") + unit
    return number(value)
