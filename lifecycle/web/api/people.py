"""Approvals (questions to people) and connections (open sockets)."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from lifecycle.errors import InvalidArgument
from lifecycle.models.reads import Approval, Connection
from lifecycle.web.api import documents as d
from lifecycle.web.api.answers import answer, items, location, nothing
from lifecycle.web.api.held import Held
from lifecycle.web.api.idempotency import Attempted
from lifecycle.web.api.inputs import ApprovalWish, Decision, Limit, NewConnection, Short
from lifecycle.web.api.paths import ApprovalId, ConnectionId, SessionId
from lifecycle.web.api.routes import ApiRoute
from lifecycle.web.api.tenancy import Reading, Writing
from lifecycle.web.problems import Refused

router = APIRouter(route_class=ApiRoute, tags=["people"])
State = Annotated[
    Literal["pending", "approved", "rejected", "expired", "all"], Query(description="`all` for whatever state.")
]


class ConnectionNotFound(Refused):
    """The session has no such connection; it may have been silent for too long."""

    status = 404


@router.get("/approvals", response_model=d.Items[Approval], responses=d.read())
async def list_approvals(
    work: Reading, session_id: Short | None = None, state: State = "pending", limit: Limit = 100
) -> Response:
    """Approvals of all sessions, or of one: oldest first."""
    wanted = None if state == "all" else state
    return items(await work.manager.list_approvals(session_id or None, state=wanted, limit=limit))


@router.get("/sessions/{session_id}/approvals", response_model=d.Items[Approval], responses=d.read())
async def list_session_approvals(
    session_id: SessionId, work: Reading, state: State = "all", limit: Limit = 100
) -> Response:
    """Approvals of a session: oldest first."""
    wanted = None if state == "all" else state
    return items(await work.one.list_approvals(session_id, state=wanted, limit=limit))


@router.post(
    "/sessions/{session_id}/approvals", status_code=201, response_model=Approval,
    responses=d.post(d.ASKED, d.NO_SESSION, d.MOVED),
)  # fmt: skip
async def request_approval(
    session_id: SessionId, body: ApprovalWish, work: Writing, lease: Held, attempt: Attempted
) -> Response:
    """Ask a person to approve something; with `suspend` the session waits for the decision."""
    derived = attempt.derived_id()
    values = body.model_dump(exclude={"approval_id"})
    known = body.approval_id or derived
    try:
        asked = await work.one.request_approval(session_id, **values, approval_id=known, lease=lease)
    except InvalidArgument:
        if not attempt.taken_over:
            raise
        # Asked by this very request, before the process that carried it out died; or by whoever uses the same id.
        made = await work.one.list_approvals(session_id, state=None, limit=1000)
        same = [one for one in made if one.approval_id == known]
        if not same:
            raise
        if known != derived:
            raise attempt.unknown() from None
        asked = same[0]
    return answer(asked, 201, {"Location": location("sessions", session_id, "approvals")})


@router.post(
    "/sessions/{session_id}/approvals/{approval_id}:resolve", response_model=Approval,
    responses=d.post(d.NO_APPROVAL),
)  # fmt: skip
async def resolve_approval(session_id: SessionId, approval_id: ApprovalId, body: Decision, work: Writing) -> Response:
    """Decide. A session that waits for it goes on; deciding the same again changes nothing."""
    return answer(
        await work.one.resolve_approval(session_id, approval_id, body.approved, by=work.actor(body.by), note=body.note)
    )


@router.get("/connections", response_model=d.Items[Connection], responses=d.read())
async def list_connections(work: Reading, session_id: Short | None = None) -> Response:
    """The open connections of all sessions, or of one: oldest first."""
    return items(await work.manager.list_connections(session_id or None))


@router.get("/sessions/{session_id}/connections", response_model=d.Items[Connection], responses=d.read())
async def list_session_connections(session_id: SessionId, work: Reading) -> Response:
    """The open connections of a session: oldest first."""
    return items(await work.one.list_connections(session_id))


@router.post(
    "/sessions/{session_id}/connections", status_code=201, response_model=Connection,
    responses=d.post(d.CONNECTED, d.NO_SESSION, d.MOVED),
)  # fmt: skip
async def open_connection(
    session_id: SessionId, work: Writing, attempt: Attempted, body: NewConnection | None = None
) -> Response:
    """Register a socket of a session, in place of one with the same id. Beat it, or it is taken for gone."""
    body = body or NewConnection()
    known = body.connection_id or attempt.derived_id()
    opened = await work.one.open_connection(session_id, connection_id=known, client=body.client)
    return answer(opened, 201, {"Location": location("sessions", session_id, "connections", opened.connection_id)})


@router.post(
    "/sessions/{session_id}/connections/{connection_id}:beat", status_code=204,
    responses=d.post(d.NO_CONNECTION),
)  # fmt: skip
async def beat_connection(session_id: SessionId, connection_id: ConnectionId, work: Writing) -> Response:
    """A sign of life of a connection, and so of its session."""
    if not await work.one.beat_connection(session_id, connection_id):
        raise ConnectionNotFound(f"session {session_id!r} has no connection {connection_id!r}")
    return nothing()


@router.delete(
    "/sessions/{session_id}/connections/{connection_id}", status_code=204, responses=d.write(d.NO_CONNECTION)
)
async def close_connection(session_id: SessionId, connection_id: ConnectionId, work: Writing) -> Response:
    """Remove a connection."""
    if not await work.one.close_connection(session_id, connection_id):
        raise ConnectionNotFound(f"session {session_id!r} has no connection {connection_id!r}")
    return nothing()
