"""Tools that look."""

from typing import Annotated, Any, Literal

from mcp.server.mcpserver import Context
from pydantic import Field

from lifecycle.errors import SessionNotFound
from lifecycle.mcp.desk import desk_of
from lifecycle.mcp.toolbox import reads
from lifecycle.models.reads import SessionPage

Limit = Annotated[int, Field(ge=1, le=100, description="at most so many")]
Cursor = Annotated[str | None, Field(description="next_cursor of the page before")]
SessionId = Annotated[str, Field(description="the session's id")]
State = Literal["active", "suspended", "completed", "ended", "expired"]


@reads("List sessions")
async def list_sessions(
    ctx: Context[Any, Any],
    state: State | None = None,
    kind: str | None = None,
    user_id: str | None = None,
    agent_id: str | None = None,
    parent_id: Annotated[str | None, Field(description="only sub-sessions of this one")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Sessions, those that were updated last first. For more, call it again with the same filters and the cursor."""
    page = await desk_of(ctx).manager.list_sessions(
        state=state, kind=kind, user_id=user_id, agent_id=agent_id, parent_id=parent_id, limit=limit, cursor=cursor
    )
    return _page(page)


@reads("Search sessions")
async def search_sessions(
    ctx: Context[Any, Any],
    text: Annotated[str, Field(min_length=1, description="what to look for, in any case")],
    limit: Limit = 20,
    cursor: Cursor = None,
    *,
    in_messages: Annotated[bool, Field(description="in the messages too, which takes longer")] = False,
) -> dict[str, Any]:
    """Sessions whose title contains a text, or with `in_messages` one of whose messages does."""
    page = await desk_of(ctx).manager.list_sessions(
        search=text, search_messages=in_messages, limit=limit, cursor=cursor
    )
    return _page(page)


@reads("Show a session")
async def show_session(
    ctx: Context[Any, Any],
    session_id: SessionId,
    entries: Annotated[int, Field(ge=0, le=1000, description="so many of the last entries of its conversation")] = 10,
    messages: Annotated[int, Field(ge=0, le=500, description="so many of its last messages")] = 0,
) -> dict[str, Any]:
    """A session with its saved state (context, plan, phase, step) and the end of its conversation and messages.

    `saved` is null when nothing was saved yet. `entries` of it says how many entries the whole conversation has.
    """
    manager = desk_of(ctx).manager
    session = await manager.get_session(session_id)
    if session is None:
        raise SessionNotFound(session_id)
    answer: dict[str, Any] = {"session": session.model_dump(mode="json"), "saved": None}
    saved = await manager.load_state(session_id, any_state=True)
    if saved is not None:
        told = saved.model_dump(mode="json")
        conversation = told["conversation"] or []
        told |= {"conversation": conversation[-entries:] if entries else [], "entries": len(conversation)}
        answer["saved"] = told
    if messages:
        found = await manager.get_messages(session_id, limit=messages, before=2**63 - 1)
        answer["messages"] = [one.model_dump(mode="json") for one in found]
    return answer


@reads("A session's history")
async def show_history(ctx: Context[Any, Any], session_id: SessionId, limit: Limit = 50) -> dict[str, Any]:
    """Every move of a session through its states: when, from where to where, by whom and why."""
    found = await desk_of(ctx).manager.history(session_id, limit=limit)
    return {"transitions": [one.model_dump(mode="json") for one in found]}


@reads("Totals")
async def stats(ctx: Context[Any, Any]) -> dict[str, Any]:
    """How many sessions there are by state, kind and agent, and what is due to be expired."""
    return (await desk_of(ctx).manager.get_stats()).model_dump(mode="json")


@reads("Stuck sessions")
async def list_stuck(
    ctx: Context[Any, Any],
    silent_for: Annotated[str, Field(description="a duration such as 30s, 5m or 1h")] = "1m",
    limit: Limit = 20,
) -> dict[str, Any]:
    """Sessions that nobody seems to get on with, and why.

    Held by a process that has gone silent, due but taken by nobody, or rescued often without progress.
    """
    found = await desk_of(ctx).manager.list_stuck(silent_for=silent_for, limit=limit)
    return {"stuck": [one.model_dump(mode="json") for one in found]}


def _page(page: SessionPage) -> dict[str, Any]:
    items = [one.model_dump(mode="json") for one in page.items]
    return {"sessions": items, "next_cursor": page.next_cursor}
