"""The HTTP server: uvicorn, by itself or in a thread beside the daemon."""

import gc
import socket
import threading
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from lifecycle.errors import ConfigError
from lifecycle.log import get_logger
from lifecycle.manager.blocking import SessionManager
from lifecycle.operations.context import ALL
from lifecycle.row_security import require_row_security
from lifecycle.settings import Settings
from lifecycle.web.app import create_app
from lifecycle.web.health import Beating
from lifecycle.web.origins import is_loopback

log = get_logger(__name__)

_DRAIN_SECONDS: Final = 10


class _Server(uvicorn.Server):
    """Ends the streams of events before it waits for the requests under way: they would not end by themselves."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at the first signal, and have the process go on to its end; at a second, end it by that at once."""
        if self.should_exit:
            self.force_exit = True
            super().handle_exit(sig, frame)  # raises it again once the server has stopped
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop."""
        await self._app.state.service.streams.close()
        await super().shutdown(sockets)


class WebServer:
    """Serves the API and the dashboard on the configured address."""

    def __init__(self, settings: Settings, beating: Beating | None = None) -> None:
        self.settings = settings
        if settings.database.row_security:
            require_row_security(settings.database.url)
        self.socket = _listening(settings)
        app = create_app(settings, beating)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, timeout_graceful_shutdown=_DRAIN_SECONDS,
            server_header=False,
            # Anybody on this machine could choose the address that he is limited and logged by.
            proxy_headers=False,
        )  # fmt: skip
        self.server = _Server(config, app)
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it is reached."""
        host, port = self.socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run(self) -> bool:
        """Serve until SIGTERM or SIGINT, or until `stop`; whether it ever started."""
        # What there is by now stays: a full collection that goes through all of it holds every request up meanwhile.
        gc.collect()
        gc.freeze()
        log.info("serving", url=self.url)
        self.server.run(sockets=[self.socket])
        return self.server.started

    def start(self) -> None:
        """Serve in a thread until `stop`."""
        self._thread = threading.Thread(target=self.run, name="lifecycle-web", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish the requests under way, for ten seconds at most, then stop."""
        self.server.should_exit = True
        if self._thread is not None:
            self._thread.join(_DRAIN_SECONDS + 5)


def _listening(settings: Settings) -> socket.socket:
    """A socket bound to the configured address. Raises `ConfigError`: what cannot be is told before anything starts."""
    host, port = settings.web.host, settings.web.port
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no name of a host"
        raise ConfigError("web.host", f"{host!r} is no address to listen on: {why}") from error
    # By the address, as a name may lead anywhere.
    if not is_loopback(str(address[0])):
        _require_key(settings, str(address[0]))
    try:
        bound = socket.socket(family, kind, number)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise ConfigError("web.host, web.port", f"cannot listen on {host}:{port}: {error.strerror}") from error
    return bound


def _require_key(settings: Settings, address: str) -> None:
    """Refuse to be reached by others before there is a key. Raises `ConfigError`."""
    with SessionManager.open(settings, ALL) as manager:
        if manager.any_key():
            return
    named = settings.web.host if settings.web.host == address else f"{settings.web.host} ({address})"
    raise ConfigError(
        "web.host",
        f"{named} is reached from beyond this machine, and there is no key yet: run `lifecycle keys create NAME"
        " --scope admin --all-tenants` first, or listen on 127.0.0.1",
    )
