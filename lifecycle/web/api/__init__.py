"""The HTTP API under /api/v1: every public operation of the managers, in resource style."""

from fastapi import FastAPI

from lifecycle.web.api import events, leases, messages, openapi, people, sessions, state, transitions, upkeep
from lifecycle.web.api.answers import PREFIX
from lifecycle.web.api.paths import EncodedPaths

# Those that are asked for most come first: routes are tried in order.
_ROUTERS = (
    sessions.router, state.router, messages.router, transitions.router, leases.router, people.router, events.router,
    upkeep.router,
)  # fmt: skip


def install(app: FastAPI) -> None:
    """Have an application serve the API."""
    for router in _ROUTERS:
        app.include_router(router, prefix=PREFIX)
    openapi.install(app)
    app.add_middleware(EncodedPaths)
