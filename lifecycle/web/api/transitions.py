"""The transitions of a session, one route for each trigger of the machine."""

from typing import Any

from fastapi import APIRouter, Response

from lifecycle import states
from lifecycle.models.reads import Session
from lifecycle.operations import lifecycle
from lifecycle.web.api import documents as d
from lifecycle.web.api.answers import session_answer
from lifecycle.web.api.conditions import Expected
from lifecycle.web.api.held import Held
from lifecycle.web.api.inputs import Reason
from lifecycle.web.api.paths import SessionId
from lifecycle.web.api.routes import ApiRoute
from lifecycle.web.api.sessions import move
from lifecycle.web.api.tenancy import Writing

router = APIRouter(route_class=ApiRoute, tags=["transitions"])


def _add(trigger: str) -> None:
    async def fire(
        session_id: SessionId, work: Writing, expected: Expected, lease: Held, body: Reason | None = None
    ) -> Response:
        body = body or Reason()
        return session_answer(
            await move(work, trigger, session_id, expected, reason=body.reason, actor=body.actor, lease=lease)
        )

    name = f"{trigger}_session"
    method: Any = getattr(lifecycle, name)
    fire.__name__ = name
    fire.__doc__ = method.__doc__.split("\n\n")[0]
    router.post(
        f"/sessions/{{session_id}}:{trigger}",
        response_model=Session,
        responses=d.post(d.CHANGED, d.NO_SESSION, d.MOVED, d.STALE),
    )(fire)


for _trigger in states.TRIGGERS:
    _add(_trigger)
