"""The worker's own port: `/metrics`, `/livez` and `/readyz`, and nothing else."""

import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import uvicorn
from fastapi import FastAPI

from lifecycle.errors import ConfigError
from lifecycle.log import get_logger
from lifecycle.manager.asynchronous import AsyncSessionManager
from lifecycle.operations.context import ALL
from lifecycle.settings import Settings
from lifecycle.web import health, problems
from lifecycle.web.service import Service

log = get_logger(__name__)

_DRAIN_SECONDS: Final = 2
# Connections that it takes of the database: one look is shared by all who ask.
_POOL: Final = 2


def create_monitor(settings: Settings, beating: health.Beating | None = None) -> FastAPI:
    """An ASGI application that says how this process is. `beating` tells what hangs in it."""
    database = settings.database.model_copy(update={"pool_size": _POOL})
    own = settings.model_copy(update={"database": database})

    health.measure(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncSessionManager.open(own, ALL) as manager:
            app.state.service = Service(own, manager)
            health.install(app, settings, manager, beating)
            yield

    app = FastAPI(
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    problems.install(app)
    app.include_router(health.router)
    return app


class MonitorServer:
    """Serves the monitor of a worker on `worker.host` and `worker.port`, in a thread."""

    def __init__(self, settings: Settings, beating: health.Beating | None = None) -> None:
        self.socket = _listening(settings.worker.host, settings.worker.port or 0)
        config = uvicorn.Config(
            create_monitor(settings, beating), log_config=None, access_log=False, server_header=False,
            timeout_graceful_shutdown=_DRAIN_SECONDS, proxy_headers=False,
        )  # fmt: skip
        self.server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="lifecycle-monitor", daemon=True)

    @property
    def url(self) -> str:
        """Where it is reached."""
        host, port = self.socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        """Serve until `stop`."""
        log.info("monitoring", url=self.url)
        self._thread.start()

    def stop(self) -> None:
        """Stop, after what is under way, for two seconds at most."""
        self.server.should_exit = True
        self._thread.join(_DRAIN_SECONDS + 3)

    def _run(self) -> None:
        self.server.run(sockets=[self.socket])


def _listening(host: str, port: int) -> socket.socket:
    """A socket bound to an address. Raises `ConfigError`."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, number)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no name of a host"
        raise ConfigError("worker.host, worker.port", f"cannot listen on {host}:{port}: {why}") from error
    return bound
