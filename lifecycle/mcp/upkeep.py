"""Tools that remove what is over."""

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import Field

from lifecycle.mcp.desk import desk_of
from lifecycle.mcp.reading import State
from lifecycle.mcp.toolbox import removes


@removes("Prune old sessions")
async def prune_sessions(
    ctx: Context[Any, Any],
    older_than: Annotated[
        str | None, Field(description="those over for so long (30d, 12h), whatever their retention")
    ] = None,
    states: Annotated[list[State] | None, Field(description="only those in these states")] = None,
    kind: str | None = None,
    *,
    dry_run: Annotated[bool, Field(description="only say what would be removed")] = True,
) -> dict[str, Any]:
    """Remove sessions that are over and past their retention, with all they own. Never a protected or held one.

    It removes nothing unless `dry_run` is false: call it as it is first, and look at how many it would remove
    (`count`).
    """
    desk = desk_of(ctx)
    report = await desk.manager.prune_sessions(
        older_than=older_than, states=states, kind=kind, dry_run=dry_run,
        actor=desk.actor,
    )  # fmt: skip
    return report.model_dump(mode="json")
