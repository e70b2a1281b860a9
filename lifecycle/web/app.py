"""The ASGI application: the API, and the dashboard beside it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Final, cast

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

import lifecycle
from lifecycle import telemetry
from lifecycle.errors import ConfigError
from lifecycle.manager.asynchronous import AsyncSessionManager
from lifecycle.operations.context import ALL
from lifecycle.settings import Settings
from lifecycle.web import access, api, dashboard, health, login, problems
from lifecycle.web.hardening import BodyLimit, SecurityHeaders
from lifecycle.web.measuring import Measuring
from lifecycle.web.request_log import RequestLog
from lifecycle.web.service import Service

if TYPE_CHECKING:
    from lifecycle.mcp.http import Endpoint

PREFIX: Final = "/api/v1"


def create_app(settings: Settings, beating: health.Beating | None = None) -> FastAPI:
    """An ASGI application that serves the sessions of a database: its schema must be up to date (`lifecycle db upgrade`).

    It opens a manager when it is started and closes it when it stops. `beating` tells what hangs in the process besides.
    Raises `ConfigError`.
    """
    telemetry.configure(settings)
    health.measure(settings)

    agents: Endpoint | None = None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            AsyncSessionManager.open(settings, ALL) as manager,
            nullcontext() if agents is None else agents.running(),
        ):
            app.state.service = Service(settings, manager)
            health.install(app, settings, manager, beating)
            await access.announce(app.state.service)
            yield

    app = FastAPI(
        title="Lifecycle",
        version=lifecycle.__version__,
        summary="Keeps the sessions of workflow engines and agents.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # What answers with a problem elsewhere does not answer with another address here.
        redirect_slashes=False,
        openapi_url=f"{PREFIX}/openapi.json",
        telemetry=cast("TelemetryConfig", telemetry.of_requests(settings)),
    )
    problems.install(app)
    app.include_router(health.router)
    api.install(app)
    app.add_middleware(BodyLimit, most=settings.web.body_bytes)
    app.add_middleware(SecurityHeaders)
    if settings.web.metrics != "off":
        app.add_middleware(Measuring)
    app.add_middleware(RequestLog)
    if settings.web.mcp:
        agents = _serve_agents(app, settings)
    if settings.web.dashboard:
        app.include_router(login.router)
        app.add_exception_handler(problems.Unauthorized, login.unauthorized)
        dashboard.mount(app)
    return app


def _serve_agents(app: FastAPI, settings: Settings) -> "Endpoint":
    try:
        from lifecycle.mcp import http
    except ModuleNotFoundError as missing:
        raise ConfigError(
            "web.mcp", f"{missing.name} is not installed: pip install 'session-lifecycle[mcp]'"
        ) from missing
    return http.install(app, settings.web.body_bytes)
