"""Logging in to the dashboard with a key, and out."""

from collections.abc import Callable, Coroutine
from html import escape
from importlib import resources
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from starlette.types import Message

from lifecycle.log import get_logger
from lifecycle.web import logins, origins
from lifecycle.web.access import Caller, caller_of
from lifecycle.web.problems import Refused, Unauthorized, problem
from lifecycle.web.service import TheService

log = get_logger(__name__)

HOME: Final = "/"
# Anybody may send the form, and it holds a key and a path.
_FORM_BYTES: Final = 65_536

_PLAIN: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Log in · Lifecycle</title></head>
<body><main><h1>Lifecycle</h1>
<form method="post" action="/login">
<p role="alert">{problem}</p>
<label>Key <input name="key" type="password" autocomplete="current-password" required autofocus></label>
<input type="hidden" name="next" value="{next}">
<button>Log in</button>
</form></main></body></html>
"""


class _SmallForm(APIRoute):
    """A route that reads no more of a body than a form of ours has."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, given a request whose body ends it with 413 where it is larger."""
        handle = super().get_route_handler()

        async def run(request: Request) -> Response:
            size = 0

            async def receive() -> Message:
                nonlocal size
                message = await request.receive()
                size += len(message.get("body", b""))
                if size > _FORM_BYTES:
                    raise HTTPException(413)
                return message

            return await handle(Request(request.scope, receive))

        return run


router = APIRouter(include_in_schema=False, route_class=_SmallForm)


@router.get("/login")
async def page(request: Request, service: TheService, next: str = HOME) -> Response:  # noqa: A002 -- the query's name
    """Show the form; who is in already, or needs no key, is sent on."""
    try:
        await caller_of(request, service)
    except Refused:
        return _form(request, "", _local(next), 200)
    return RedirectResponse(_local(next), 303)


@router.post("/login")
async def login(
    request: Request,
    service: TheService,
    key: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = HOME,  # noqa: A002 -- the field's name
) -> Response:
    """Take a key and give the cookie. Raises `ForeignOrigin`, `TooMany`."""
    origins.require_own_page(request)
    address = origins.sender(request)
    found = await service.keyring.of_text(key.strip(), address)
    if found is None:
        log.warning("login_failed", address=address)
        return _form(request, "This key opens nothing: it is unknown, revoked or has expired.", _local(next), 401)
    log.info("logged_in", address=address, key_id=found.key_id, name=found.name)
    response = RedirectResponse(_local(next), 303)
    logins.give_cookie(response, service.settings.web, await service.keyring.load_secret(), found.key_id)
    return response


@router.post("/logout")
async def logout(service: TheService, _caller: Annotated[Caller, Depends(caller_of)]) -> Response:
    """Have the browser forget the cookie."""
    response = RedirectResponse("/login", 303)
    logins.take_cookie(response, service.settings.web)
    return response


async def unauthorized(request: Request, error: Exception) -> Response:
    """The answer to who is not let in: the way to the form for a person who opens a page, a problem document else."""
    assert isinstance(error, Unauthorized)  # noqa: S101 -- for the types; it is called for these only
    wants_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
    if not wants_page or request.url.path.startswith("/api/"):
        return problem(error.status, error.detail, type(error).__name__, error.headers)
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"/login?{urlencode({'next': request.url.path + query})}", 303)


def _local(path: str) -> str:
    """The path if it is one of ours; who logs in must not be led elsewhere."""
    plain = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if plain else HOME


def _form(request: Request, refusal: str, next_: str, status: int) -> Response:
    values: dict[str, Any] = {"problem": refusal, "next": next_}
    templates = resources.files("lifecycle.web").joinpath("dashboard", "templates")
    if not templates.joinpath("login.html").is_file():
        return HTMLResponse(_PLAIN.format(problem=escape(refusal), next=escape(next_)), status)
    from starlette.templating import Jinja2Templates

    return Jinja2Templates(str(templates)).TemplateResponse(request, "login.html", values, status)
