"""A middleware that takes the time of every request, by the template of its route."""

import time
from http import HTTPStatus
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lifecycle import metrics
from lifecycle.web.request_log import route_of

# Whatever else callers send would be a label of its own each time.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNMATCHED: Final = "unmatched"


class Measuring:
    """Measures the application inside of it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note how long it took and what came of it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        measured = metrics.of_process()
        began, status, streams = time.perf_counter(), int(HTTPStatus.INTERNAL_SERVER_ERROR), False

        def note() -> None:
            route = route_of(scope) or _UNMATCHED
            method = scope["method"] if scope["method"] in _METHODS else "other"
            measured.http.labels(method, route, str(status)).observe(time.perf_counter() - began)

        async def passing(message: Message) -> None:
            nonlocal status, streams
            if message["type"] == "http.response.start":
                status = message["status"]
                streams = any(
                    name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                    for name, value in message.get("headers", ())
                )
                if streams:  # it lasts for as long as somebody listens
                    note()
            await send(message)

        measured.http_in_progress.inc()
        try:
            await self.app(scope, receive, passing)
        finally:
            measured.http_in_progress.dec()
            if not streams:
                note()
