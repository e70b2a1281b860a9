"""Tools with which an agent keeps its own sessions."""

from typing import Annotated, Any, Literal

from mcp.server.mcpserver import Context
from pydantic import Field

from lifecycle.mcp.desk import Desk, desk_of
from lifecycle.mcp.reading import SessionId
from lifecycle.mcp.toolbox import replaces, writes
from lifecycle.unset import UNSET

Reason = Annotated[str | None, Field(description="why, for the history")]
Document = Annotated[Any, Field(description="any JSON")]
_Field = Literal["context", "plan", "phase", "step"]


@writes("Create a session")
async def create_session(
    ctx: Context[Any, Any],
    session_id: Annotated[str | None, Field(description="its id; one is made up if there is none")] = None,
    title: str | None = None,
    kind: str = "chat",
    user_id: str | None = None,
    agent_id: str | None = None,
    parent_id: Annotated[str | None, Field(description="the session that it is delegated by")] = None,
    context: Document = None,
) -> dict[str, Any]:
    """Make a session. One of this id that is there already is an error, and is left as it is."""
    desk = desk_of(ctx)
    session = await desk.manager.create_session(
        session_id=session_id, title=title, kind=kind, user_id=user_id, agent_id=agent_id, parent_id=parent_id,
        context=context, actor=desk.actor,
    )  # fmt: skip
    return session.model_dump(mode="json")


@replaces("Save a session's state")
async def save_session(
    ctx: Context[Any, Any],
    session_id: SessionId,
    append: Annotated[list[Any] | None, Field(description="entries to add to the conversation")] = None,
    context: Document = None,
    plan: Document = None,
    phase: str | None = None,
    step: int | None = None,
    clear: Annotated[list[_Field] | None, Field(description="what to set to null")] = None,
    expected_version: Annotated[
        int | None, Field(description="the version that you read: the save is refused if there is a newer one")
    ] = None,
) -> dict[str, Any]:
    """Save what a session has come to. What is not given stays as it was; what is given takes the place of what was there.

    Pass the `version` that show_session gave as `expected_version`, so that nobody else's save is overwritten.
    """
    given = {"context": context, "plan": plan, "phase": phase, "step": step}
    fields: dict[str, Any] = {
        name: None if name in (clear or ()) else UNSET if value is None else value for name, value in given.items()
    }
    version = await desk_of(ctx).manager.save_state(
        session_id, append=append, expected_version=expected_version, **fields
    )
    return {"session_id": session_id, "version": version}


@writes("Add a message")
async def add_message(
    ctx: Context[Any, Any], session_id: SessionId, role: str, content: Annotated[Any, Field(description="text or JSON")]
) -> dict[str, Any]:
    """Add a message to a session, behind those that are there."""
    message = await desk_of(ctx).manager.add_message(session_id, role, content)
    return message.model_dump(mode="json")


@writes("Suspend a session")
async def suspend_session(ctx: Context[Any, Any], session_id: SessionId, reason: Reason = None) -> dict[str, Any]:
    """Set an active session aside: it takes no saves until it is resumed, and may stay so for longer before it expires."""
    return await _move(desk_of(ctx), "suspend_session", session_id, reason)


@writes("Resume a session")
async def resume_session(ctx: Context[Any, Any], session_id: SessionId, reason: Reason = None) -> dict[str, Any]:
    """Take a suspended session up again."""
    return await _move(desk_of(ctx), "resume_session", session_id, reason)


@writes("Complete a session")
async def complete_session(ctx: Context[Any, Any], session_id: SessionId, reason: Reason = None) -> dict[str, Any]:
    """Close a session whose work is done. It can be read, until its retention is over, and not be gone on with."""
    return await _move(desk_of(ctx), "complete_session", session_id, reason)


@writes("End a session")
async def end_session(ctx: Context[Any, Any], session_id: SessionId, reason: Reason = None) -> dict[str, Any]:
    """Close a session whose work is not done and will not be. It can be read, and not be gone on with."""
    return await _move(desk_of(ctx), "end_session", session_id, reason)


@writes("Protect a session", repeatable=True)
async def protect_session(ctx: Context[Any, Any], session_id: SessionId) -> dict[str, Any]:
    """Keep a session from being expired, pruned and deleted. Only its operators can take that back."""
    session = await desk_of(ctx).manager.update_session(session_id, protected=True)
    return session.model_dump(mode="json")


@replaces("Clean up after a delegation")
async def clean_up_after_delegation(
    ctx: Context[Any, Any], session_id: SessionId, reason: str = "delegation finished"
) -> dict[str, Any]:
    """End and remove a sub-session whose work is done, with all sub-sessions below it: all of them or none.

    Read what you need of it before. One that is protected, or that somebody holds, is not removed, nor is one without a
    parent.
    """
    desk = desk_of(ctx)
    report = await desk.manager.cleanup_after_delegation(session_id, reason=reason, actor=desk.actor)
    return report.model_dump(mode="json")


async def _move(desk: Desk, method: str, session_id: str, reason: str | None) -> dict[str, Any]:
    session = await getattr(desk.manager, method)(session_id, reason=reason, actor=desk.actor)
    told: dict[str, Any] = session.model_dump(mode="json")
    return told
