"""The MCP server over streamable HTTP, at /mcp of the HTTP server.

The keys, limits and refusals are those of the HTTP API: who may do what is settled before the protocol is spoken. Requests
stand for themselves: none is of a session that somebody else could go on with.
"""

import contextlib
from collections.abc import AsyncIterator
from typing import Final, cast

from fastapi import FastAPI, Request
from mcp.server.transport_security import TransportSecuritySettings
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from lifecycle.mcp.desk import DESK, Desk
from lifecycle.mcp.server import make_server
from lifecycle.operations.keys import SCOPES
from lifecycle.web import access
from lifecycle.web.problems import Refused
from lifecycle.web.service import Service

PATH: Final = "/mcp"


class PostOnly(Refused):
    """There are no streams to open and no sessions to end here."""

    status = 405
    headers = {"Allow": "POST"}  # noqa: RUF012 -- never changed


class Endpoint:
    """Answers a request with the server that has the tools of its sender's scope."""

    def __init__(self, most_bytes: int) -> None:
        self._servers = {scope: make_server(scope) for scope in SCOPES}
        for server in self._servers.values():
            # Who may name us how is settled by `access`, as for every other request.
            server.streamable_http_app(
                json_response=True, stateless_http=True, max_request_body_size=most_bytes,
                transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
            )  # fmt: skip

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Be ready to answer."""
        async with contextlib.AsyncExitStack() as stack:
            for server in self._servers.values():
                await stack.enter_async_context(server.session_manager.run())
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. Raises `Refused` for one that must not be answered."""
        request = Request(scope, receive)
        service = cast("Service", request.app.state.service)
        caller = await access.caller_of(request, service)
        if request.method != "POST":
            raise PostOnly(f"send messages with POST; there is nothing to {request.method} here")
        scope[DESK] = Desk(access.manager_of(caller, service), caller.name)
        await self._servers[caller.scope].session_manager.handle_request(scope, receive, send)


def install(app: FastAPI, most_bytes: int) -> Endpoint:
    """Have an application answer at /mcp once what comes back is `running`."""
    endpoint = Endpoint(most_bytes)
    app.router.routes.append(Route(PATH, endpoint, include_in_schema=False))
    return endpoint
