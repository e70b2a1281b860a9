"""A line in the log for each request, and the id by which a client and the log mean the same one.

What is logged names the route and nothing in it: ids of sessions and users, queries and bodies are not the log's to
keep.
"""

import re
import time
from typing import Any, Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lifecycle.ids import uuid7
from lifecycle.log import get_logger

log = get_logger(__name__)

HEADER: Final = "Request-Id"
_PREFIX: Final = "/api/v1"
_TAKEN: Final = re.compile(r"[!-~]{1,128}")
_SERVER_ERROR: Final = 500


def route_of(scope: Scope) -> str:
    """The template of the route that a request came to, such as `/api/v1/sessions/{session_id}`; empty for none."""
    path = str(getattr(scope.get("route"), "path", ""))
    if path and scope["path"].startswith(_PREFIX) and not path.startswith(_PREFIX):
        return _PREFIX + path  # a router's own paths are without what it was included under
    return path


class RequestLog:
    """Logs `request` with method, route, status, seconds and id; answers with the id, the client's own if it sent one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and log it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get(HEADER, "")
        request_id = sent if _TAKEN.fullmatch(sent) else uuid7()
        began, status = time.perf_counter(), _SERVER_ERROR

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                fields: dict[str, Any] = {
                    "method": scope["method"],
                    "route": route_of(scope),
                    "status": status,
                    "seconds": round(time.perf_counter() - began, 6),
                }
                (log.warning if status >= _SERVER_ERROR else log.info)("request", **fields)
