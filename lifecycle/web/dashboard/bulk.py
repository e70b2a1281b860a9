"""Doing the same to many sessions, and saying of each what came of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Form, Request, Response

from lifecycle import states
from lifecycle.errors import InvalidArgument, LifecycleError, StorageUnavailable
from lifecycle.log import get_logger, mask_passwords
from lifecycle.web.api.bodies import InvalidJson, parse
from lifecycle.web.dashboard.acting import move
from lifecycle.web.dashboard.failures import OURS
from lifecycle.web.dashboard.rendering import page
from lifecycle.web.dashboard.viewer import TheViewer, Viewer
from lifecycle.web.problems import Refused

log = get_logger(__name__)
router = APIRouter()

MOST: Final = 100
DELETE: Final = "delete"
# Two ids of 255 characters, each of them as two escapes.
_LONGEST: Final = 2 * 255 * 12 + 16


class InvalidPick(Refused):
    """What was ticked is not what the list's boxes send."""

    status = 400


@dataclass(frozen=True, slots=True)
class Picked:
    """A ticked session: whose it is, and its id."""

    tenant: str
    session_id: str

    @property
    def value(self) -> str:
        """As the form carries it."""
        return json.dumps([self.tenant, self.session_id])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it for one session."""

    picked: Picked
    done: bool
    text: str


@router.post("/sessions/bulk")
async def bulk(
    request: Request,
    viewer: TheViewer,
    action: Annotated[str, Form()],
    pick: Annotated[list[str] | None, Form()] = None,
    reason: Annotated[str, Form()] = "",
    confirmed: Annotated[str, Form()] = "",
) -> Response:
    """Do it, or ask first where it cannot be undone."""
    viewer.require("write")
    if action not in {*states.TRIGGERS, DELETE}:
        raise InvalidArgument(f"action: {action!r} is none of {', '.join((*states.TRIGGERS, DELETE))}")
    picked = picked_of(pick or [])
    if action == DELETE and picked and not confirmed:
        return page(request, viewer, "bulk_confirm.html", picked=picked)
    outcomes = [await _act(viewer, one, action, reason or None) for one in picked]
    return page(request, viewer, "bulk.html", action=action, outcomes=outcomes)


def picked_of(values: Sequence[str]) -> list[Picked]:
    """The ticked sessions, each once. Raises `InvalidPick` for what the list's boxes do not send."""
    if len(values) > MOST:
        raise InvalidPick(f"pick: at most {MOST} sessions at once, not {len(values)}")
    found = []
    for value in values:
        try:
            pair = parse(value.encode()) if len(value) <= _LONGEST else None
        except (InvalidJson, UnicodeEncodeError):
            pair = None
        match pair:
            case [str(tenant), str(session_id)]:
                found.append(Picked(tenant, session_id))
            case _:
                raise InvalidPick(f'pick: must be ["tenant", "session id"] as JSON, not {value[:100]!r}')
    return list(dict.fromkeys(found))


async def _act(viewer: Viewer, picked: Picked, action: str, reason: str | None) -> Outcome:
    try:
        if action != DELETE:
            moved = await move(viewer, picked.tenant, picked.session_id, action, reason)
            return Outcome(picked, True, f"is {moved.state}")
        manager = viewer.manager_for(picked.tenant)
        gone = await manager.delete_session(picked.session_id, actor=viewer.caller.name)
    except OURS as error:
        # Which server or file it is, is for who runs this, not for who looks.
        log.warning("bulk_not_done", action=action, error=mask_passwords(str(error)))
        if not isinstance(error, StorageUnavailable):
            return Outcome(picked, False, "it cannot be done now; why is in the log")
        unknown = "; it is not known whether it was done" if error.outcome_unknown else ""
        return Outcome(picked, False, "the database does not answer" + unknown)
    except LifecycleError as error:
        return Outcome(picked, False, str(error))
    return Outcome(picked, gone, "is deleted" if gone else "was not there any more")
