"""Approvals (questions to people) and connections (open sockets)."""

from typing import Any

from lifecycle import states
from lifecycle.errors import ApprovalNotFound, ApprovalResolved, InvalidArgument
from lifecycle.ids import uuid7
from lifecycle.models.reads import Approval, Connection
from lifecycle.operations import rows
from lifecycle.operations.context import Context, check_count
from lifecycle.operations.fencing import Held, fence_of
from lifecycle.operations.refusal import explain
from lifecycle.operations.requests import (
    BeatConnection,
    CloseConnection,
    DuplicateKey,
    ListApprovals,
    ListConnections,
    OpenConnection,
    RequestApproval,
    ResolveApproval,
)
from lifecycle.operations.sessions import Duration, _duration
from lifecycle.operations.typing import Steps

APPROVAL_STATES = ("pending", "approved", "rejected", "expired")


def request_approval(
    context: Context,
    session_id: str,
    action: str,
    *,
    details: Any = None,
    requested_by: str | None = None,
    expires_in: Duration | None = None,
    suspend: bool = False,
    approval_id: str | None = None,
    lease: Held | None = None,
) -> Steps[Approval]:
    """Ask a person to approve `action` and return the pending request.

    With `suspend` the session is suspended in the same transaction, and resumed by the decision. `expires_in` bounds
    the wait. Raises `SessionNotFound`, `InvalidTransition` (it is finished), `LeaseLost`.
    """
    session_id = context.check_id(session_id)
    values = {
        "approval_id": uuid7() if approval_id is None else context.check_id(approval_id, "approval_id"),
        "action": context.check_long(action, "action"),
        "details": None if details is None else context.document(details, "details"),
        "requested_by": context.check_short(requested_by, "requested_by"),
    }
    fence = fence_of(context.tenant, session_id, lease)
    wait = _duration(expires_in, "expires_in")
    request = RequestApproval(context.tenant, session_id, values, wait, bool(suspend), fence)
    try:
        row = yield request
    except DuplicateKey as error:
        raise InvalidArgument(f"approval_id: {values['approval_id']!r} is taken in this session") from error
    if row is None:
        yield from explain(context, session_id, "request an approval for", needs=states.LIVE, fence=fence)
    return rows.approval(row)


def resolve_approval(
    context: Context,
    session_id: str,
    approval_id: str,
    approved: bool,
    *,
    by: str | None = None,
    note: str | None = None,
) -> Steps[Approval]:
    """Decide a pending request and return it; a session that it suspended goes on.

    Deciding the same again returns it. Raises `ApprovalNotFound`, `ApprovalResolved` (otherwise, or expired).
    """
    session_id = context.check_id(session_id)
    approval_id = context.check_id(approval_id, "approval_id")
    state = "approved" if approved else "rejected"
    row = yield ResolveApproval(
        context.tenant, session_id, approval_id, state, context.check_short(by, "by"), context.check_long(note, "note")
    )
    if row is None:
        raise ApprovalNotFound(session_id, approval_id)
    if row["state"] != state:
        raise ApprovalResolved(approval_id, row["state"])
    return rows.approval(row)


def list_approvals(
    context: Context, session_id: str | None = None, *, state: str | None = "pending", limit: int = 100
) -> Steps[list[Approval]]:
    """Approvals in a state (None for all), of one session or of all, oldest first."""
    if state is not None and state not in APPROVAL_STATES:
        raise InvalidArgument(f"state must be one of {', '.join(APPROVAL_STATES)}, not {state!r}")
    check_count(limit, "limit", 1, 1000)
    if session_id is not None:
        context.check_id(session_id)
    found = yield ListApprovals(context.tenant_or_all, session_id, state, limit)
    return [rows.approval(row) for row in found]


def open_connection(
    context: Context, session_id: str, *, connection_id: str | None = None, client: Any = None
) -> Steps[Connection]:
    """Register a socket of a live session and return it. Raises `SessionNotFound`, `InvalidTransition`."""
    session_id = context.check_id(session_id)
    known = uuid7() if connection_id is None else context.check_id(connection_id, "connection_id")
    text = None if client is None else context.document(client, "client")
    row = yield OpenConnection(context.tenant, session_id, known, text)
    if row is None:
        yield from explain(context, session_id, "connect to", needs=states.LIVE)
    return rows.connection(row)


def beat_connection(context: Context, session_id: str, connection_id: str) -> Steps[bool]:
    """A sign of life of a connection, and so of its session; False when it is gone (silent for too long)."""
    session_id = context.check_id(session_id)
    return bool((yield BeatConnection(context.tenant, session_id, context.check_id(connection_id, "connection_id"))))


def close_connection(context: Context, session_id: str, connection_id: str) -> Steps[bool]:
    """Remove a connection; whether it was there."""
    session_id = context.check_id(session_id)
    return bool((yield CloseConnection(context.tenant, session_id, context.check_id(connection_id, "connection_id"))))


def list_connections(context: Context, session_id: str | None = None) -> Steps[list[Connection]]:
    """The open connections, of one session or of all, oldest first."""
    if session_id is not None:
        context.check_id(session_id)
    found = yield ListConnections(context.tenant_or_all, session_id)
    return [rows.connection(row) for row in found]
