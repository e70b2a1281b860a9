"""The saved state of a session, and its checkpoints."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response

from lifecycle.errors import SessionNotFound
from lifecycle.models.reads import Checkpoint, CheckpointDocuments, SavedState
from lifecycle.web.api import documents as d
from lifecycle.web.api.answers import answer, items, location
from lifecycle.web.api.conditions import Expected, Known, etag
from lifecycle.web.api.held import CarriedLease, Held
from lifecycle.web.api.inputs import NewCheckpoint, State, StateChanges
from lifecycle.web.api.paths import SessionId
from lifecycle.web.api.routes import ApiRoute
from lifecycle.web.api.tenancy import Reading, Work, Writing
from lifecycle.web.problems import Refused

router = APIRouter(route_class=ApiRoute, tags=["state"])

Seq = Annotated[int, Path(ge=1, le=2**63 - 1, description="The checkpoint's seq.")]
Token = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key", min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$",
        description="The save's retry token, where the body has none: a repeat answers the first one's version.",
    ),
]  # fmt: skip


class StateNotFound(Refused):
    """The session is there, but nothing was saved."""

    status = 404


@router.get(
    "/sessions/{session_id}/state", response_model=SavedState, responses=d.read(d.TAGGED, d.NOT_MODIFIED, d.NO_STATE)
)
async def load_state(
    session_id: SessionId,
    work: Reading,
    known: Known,
    any_state: Annotated[bool, Query(description="Of a finished session too.")] = False,
) -> Response:
    """What the last save left. Its `ETag` goes into the `If-Match` of the next one."""
    saved = await work.one.load_state(session_id, any_state=any_state)
    if saved is None:
        session = await work.one.get_session(session_id)
        if session is None:
            raise SessionNotFound(session_id)
        why = "has no saved state" if any_state else f"is {session.state} or has no saved state (any_state=true)"
        raise StateNotFound(f"session {session_id!r} {why}")
    tag = etag(saved.version)
    if known & {tag, "*"}:
        return Response(status_code=304, headers={"ETag": tag})
    return answer(saved, headers={"ETag": tag})


_SAVING = d.write(d.SAVED, d.NO_SESSION, d.MOVED, d.STALE, d.BUSY, d.TOKEN)


@router.patch("/sessions/{session_id}/state", response_model=d.Version, responses=_SAVING)
async def save_state(
    session_id: SessionId, body: StateChanges, work: Writing, expected: Expected, lease: Held, key: Token = None
) -> Response:
    """Save what is given; what is left out stays. It is durable when this answers."""
    return await _save(work, session_id, body.model_dump(exclude_unset=True), expected, lease, key)


@router.put("/sessions/{session_id}/state", response_model=d.Version, responses=_SAVING)
async def replace_state(
    session_id: SessionId, body: State, work: Writing, expected: Expected, lease: Held, key: Token = None
) -> Response:
    """Save a whole state in place of what was there. It is durable when this answers."""
    return await _save(work, session_id, body.model_dump(), expected, lease, key)


async def _save(
    work: Work,
    session_id: str,
    values: dict[str, Any],
    expected: int | None,
    lease: CarriedLease | None,
    key: str | None,
) -> Response:
    values["token"] = values.get("token") or key
    version = await work.one.save_state(session_id, **values, expected_version=expected, lease=lease)
    return answer({"version": version}, headers={"ETag": etag(version)})


@router.post(
    "/sessions/{session_id}/checkpoints", status_code=201, response_model=Checkpoint,
    responses=d.post(d.MADE_CHECKPOINT, d.NO_SESSION, d.MOVED, d.BUSY),
)  # fmt: skip
async def checkpoint(session_id: SessionId, body: NewCheckpoint, work: Writing, lease: Held) -> Response:
    """Keep a copy of the saved state under a label."""
    made = await work.one.checkpoint(session_id, body.label, body.data, lease=lease)
    return answer(made, 201, {"Location": location("sessions", session_id, "checkpoints", str(made.seq))})


@router.get("/sessions/{session_id}/checkpoints", response_model=d.Items[Checkpoint], responses=d.read())
async def list_checkpoints(session_id: SessionId, work: Reading) -> Response:
    """The session's checkpoints without their documents, oldest first; none of a session that is not there."""
    return items(await work.one.list_checkpoints(session_id))


@router.get(
    "/sessions/{session_id}/checkpoints/{seq}", response_model=CheckpointDocuments, responses=d.read(d.NO_CHECKPOINT)
)
async def get_checkpoint(session_id: SessionId, seq: Seq, work: Reading) -> Response:
    """A checkpoint with the documents that it keeps."""
    return answer(await work.one.get_checkpoint(session_id, seq))


@router.post(
    "/sessions/{session_id}/checkpoints/{seq}:restore", response_model=d.Version,
    responses=d.post(d.SAVED, d.NO_CHECKPOINT, d.MOVED, d.BUSY),
)  # fmt: skip
async def restore_checkpoint(session_id: SessionId, seq: Seq, work: Writing, lease: Held) -> Response:
    """Make a checkpoint the saved state of the session."""
    version = await work.one.restore_checkpoint(session_id, seq, lease=lease)
    return answer({"version": version}, headers={"ETag": etag(version)})
