"""The sessions that nobody gets on with, by reason."""

from typing import Final

from fastapi import APIRouter, Request, Response

from lifecycle.errors import InvalidArgument
from lifecycle.operations.oversight import WHYS
from lifecycle.web.dashboard.rendering import page
from lifecycle.web.dashboard.viewer import TheViewer

router = APIRouter()

SHOWN: Final = 50
_MEANING: Final = {
    "held but silent": "Its lease ran out and nobody took over: the process died, and no runner of its kind is there.",
    "due but unclaimed": "It waits to be worked on: no runner of its kind is there, or all of them are busy.",
    "rescued often": "Its processes died twice or more without getting on: it may be what kills them.",
}


@router.get("/stuck")
async def stuck(request: Request, viewer: TheViewer, silent_for: str = "1m") -> Response:
    """The page."""
    problem = None
    try:
        found = await viewer.manager.list_stuck(silent_for=silent_for.strip() or "1m", limit=SHOWN)
    except InvalidArgument as error:
        found, problem = [], str(error)
    groups = {why: [one.session for one in found if one.why == why] for why in WHYS}
    return page(
        request, viewer, "stuck.html", status=200 if problem is None else 422, groups=groups, meaning=_MEANING,
        silent_for=silent_for, problem=problem, some=SHOWN,
    )  # fmt: skip
