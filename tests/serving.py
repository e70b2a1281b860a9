"""The HTTP server for tests: a real one, on a port of its own, in a thread of this process."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from lifecycle import Settings
from lifecycle.web import WebServer

_START_SECONDS = 30


class Served:
    """A server that answers: its URL and its application."""

    def __init__(self, server: WebServer) -> None:
        self.server = server
        self.url = server.url

    @property
    def app(self) -> FastAPI:
        """The application, to add routes to or look at."""
        app = self.server.server.config.app
        assert isinstance(app, FastAPI)
        return app


@contextlib.contextmanager
def serving(url: str | Settings, **web: Any) -> Iterator[Served]:
    """Serve a database, with settings of the section `web`; it answers when this is entered."""
    settings = url if isinstance(url, Settings) else Settings(database={"url": url}, web={"port": 0} | web)
    server = WebServer(settings)
    server.start()
    try:
        end = time.monotonic() + _START_SECONDS
        while not server.server.started:
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.01)
        yield Served(server)
    finally:
        server.stop()
