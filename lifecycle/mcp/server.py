"""The MCP server, over stdio."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from mcp.server import MCPServer

import lifecycle
from lifecycle.manager.asynchronous import AsyncSessionManager
from lifecycle.mcp import reading, upkeep, writing
from lifecycle.mcp.desk import Desk
from lifecycle.mcp.toolbox import Scope, add_tools
from lifecycle.operations.context import AllTenants
from lifecycle.settings import Settings

MODULES: Final = (reading, writing, upkeep)
"""Where the tools are: importing them is what makes them known."""

_INSTRUCTIONS: Final = """Sessions outlive the processes that work on them. Save what you have come to with save_session, at
the latest before you stop; show_session gives it back. Suspend what waits for somebody, complete what is done, and clean up
after what you delegated."""


def make_server(scope: Scope, **options: Any) -> MCPServer[Any]:
    """A server with the tools of a scope. `options` are those of `MCPServer`."""
    server = MCPServer[Any](
        "lifecycle", title="Lifecycle", version=lifecycle.__version__, instructions=" ".join(_INSTRUCTIONS.split()),
        log_level="WARNING", **options,
    )  # fmt: skip
    add_tools(server, scope)
    return server


async def serve_stdio(settings: Settings, tenant: str | AllTenants, scope: Scope, actor: str) -> None:
    """Serve whoever speaks on stdin, until it ends."""

    @contextlib.asynccontextmanager
    async def lifespan(_: MCPServer[Any]) -> AsyncIterator[Desk]:
        async with AsyncSessionManager.open(settings, tenant) as manager:
            yield Desk(manager, actor)

    await make_server(scope, lifespan=lifespan).run_stdio_async()
