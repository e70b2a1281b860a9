"""What is done to one session: the moves that the machine allows, and removal."""

from typing import Annotated, Any, cast

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from lifecycle import states
from lifecycle.errors import Conflict, InvalidArgument, SessionNotFound
from lifecycle.models.reads import Session
from lifecycle.web.dashboard.rendering import link, page
from lifecycle.web.dashboard.session import Asked, show
from lifecycle.web.dashboard.viewer import TheViewer, Viewer

router = APIRouter()

Text = Annotated[str, Form()]


async def move(viewer: Viewer, tenant: str, session_id: str, trigger: str, reason: str | None) -> Session:
    """Fire a trigger in the viewer's name, and return the session."""
    if trigger not in states.TRIGGERS:
        raise InvalidArgument(f"trigger: {trigger!r} is none of {', '.join(states.TRIGGERS)}")
    method: Any = getattr(viewer.manager_for(tenant), f"{trigger}_session")
    return cast("Session", await method(session_id, reason=reason, actor=viewer.caller.name))


@router.post("/session/move")
async def moved(
    request: Request,
    viewer: TheViewer,
    id: Text,  # noqa: A002 -- the name of the field
    trigger: Text,
    tenant: Text = "",
    reason: Text = "",
) -> Response:
    """Move it; what the machine refuses is said on its page."""
    viewer.require("write")
    try:
        await move(viewer, tenant, id, trigger, reason.strip() or None)
    except Conflict as conflict:
        return await show(request, viewer, Asked(id, tenant), problem=str(conflict), status=409)
    return RedirectResponse(link("/session", id=id, tenant=tenant, done=trigger), 303)


@router.get("/session/delete")
async def asked(request: Request, viewer: TheViewer, id: str, tenant: str = "") -> Response:  # noqa: A002 -- as above
    """Ask whether it is meant: what the dialog shows, as a page."""
    viewer.require("write")
    session = await viewer.manager_for(tenant).get_session(id)
    if session is None:
        raise SessionNotFound(id)
    return page(request, viewer, "delete.html", session=session, problem=None)


@router.post("/session/delete")
async def deleted(
    request: Request,
    viewer: TheViewer,
    id: Text,  # noqa: A002 -- the name of the field
    tenant: Text = "",
    how: Text = "remove",
    force: Text = "",
) -> Response:
    """Remove it, or hide it until its retention ends."""
    viewer.require("write")
    manager = viewer.manager_for(tenant)
    soft = how == "hide"
    try:
        gone = await manager.delete_session(id, soft=soft, force=bool(force), actor=viewer.caller.name)
    except Conflict as conflict:
        session = await manager.get_session(id)
        if session is None:
            raise SessionNotFound(id) from conflict
        return page(request, viewer, "delete.html", status=409, session=session, problem=str(conflict))
    if not gone:
        raise SessionNotFound(id)
    return page(request, viewer, "deleted.html", session_id=id, tenant=tenant, soft=soft)


@router.post("/session/undelete")
async def brought_back(viewer: TheViewer, id: Text, tenant: Text = "") -> Response:  # noqa: A002 -- as above
    """Show a hidden session again."""
    viewer.require("write")
    await viewer.manager_for(tenant).undelete_session(id, actor=viewer.caller.name)
    return RedirectResponse(link("/session", id=id, tenant=tenant, done="undelete"), 303)
