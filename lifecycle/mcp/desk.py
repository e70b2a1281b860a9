"""What a tool works with: the manager of its caller's sessions, and the caller's name for the audit log."""

from dataclasses import dataclass
from typing import Any, Final

from mcp.server.mcpserver import Context

from lifecycle.manager.asynchronous import AsyncSessionManager

# Where a request over HTTP keeps it.
DESK: Final = "lifecycle.desk"


@dataclass(frozen=True, slots=True)
class Desk:
    """A manager, and who acts through it."""

    manager: AsyncSessionManager
    actor: str


def desk_of(context: Context[Any, Any]) -> Desk:
    """The desk of the request's sender, or over stdio the only one there is."""
    request = context.request_context.request
    found = context.request_context.lifespan_context if request is None else request.scope[DESK]
    if not isinstance(found, Desk):
        raise TypeError(f"no desk but {type(found).__name__}")
    return found
