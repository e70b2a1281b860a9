"""The inbox of approvals: what waits for a person, and his answer."""

from typing import Annotated, Final

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from lifecycle.errors import ApprovalResolved, InvalidArgument
from lifecycle.web.dashboard import trees
from lifecycle.web.dashboard.rendering import link, page
from lifecycle.web.dashboard.viewer import TheViewer, Viewer

router = APIRouter()

SHOWN: Final = 100
_DECISIONS: Final = {"approve": True, "reject": False}
_DONE: Final = {"approved": "Approved.", "rejected": "Rejected."}


@router.get("/approvals")
async def approvals(request: Request, viewer: TheViewer, done: str = "") -> Response:
    """What waits, oldest first."""
    return await _inbox(request, viewer, said=_DONE.get(done))


@router.post("/approvals/decide")
async def decide(
    request: Request,
    viewer: TheViewer,
    id: Annotated[str, Form()],  # noqa: A002 -- the field's name
    approval: Annotated[str, Form()],
    decision: Annotated[str, Form()],
    tenant: Annotated[str, Form()] = "",
    note: Annotated[str, Form()] = "",
) -> Response:
    """Decide; a session that waited for it goes on."""
    viewer.require("write")
    if decision not in _DECISIONS:
        raise InvalidArgument(f"decision: {decision!r} is none of {', '.join(_DECISIONS)}")
    try:
        decided = await viewer.manager_for(tenant).resolve_approval(
            id, approval, _DECISIONS[decision], by=viewer.caller.name, note=note.strip() or None
        )
    except ApprovalResolved as error:
        return await _inbox(request, viewer, problem=f"Somebody was faster: {error}.", status=409)
    return RedirectResponse(link("/approvals", done=decided.state), 303)


async def _inbox(
    request: Request, viewer: Viewer, *, said: str | None = None, problem: str | None = None, status: int = 200
) -> Response:
    found = await viewer.manager.list_approvals(limit=SHOWN)
    waiting = [(one, None if one.details is None else trees.tree(one.details, "details")) for one in found]
    return page(
        request, viewer, "approvals.html", status=status, waiting=waiting, said=said, problem=problem, some=SHOWN
    )
