"""Approvals and connections on any database."""

from functools import cache

import sqlalchemy as sa

from lifecycle import deadlines, states
from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import (
    Recipe,
    Row,
    active_now,
    barred,
    bound,
    insert,
    is_in,
    key,
    lock,
    of_key,
    own_key,
    p,
    set_row,
    setting,
)
from lifecycle.recipes.portable.moves import move_locked
from lifecycle.recipes.statement import Statement


def request_approval(request: r.RequestApproval) -> Recipe:
    """Insert the request; suspend the session in the same transaction."""
    row = yield from lock(request)
    if row is None or row["state"] not in states.LIVE:
        return None
    if request.fence is not None and barred(row, request.fence):
        return None
    suspends = request.suspend and row["state"] == "active"
    values = {
        **own_key(row),
        **request.values,
        "state": "pending",
        "requested_at": row["now"],
        "expires_at": deadlines.later(row["now"], request.expires_in),
        "suspended": suspends,
    }
    yield insert(t.approvals, tuple(values)), bound(values)
    if suspends:
        fired = r.Move(
            request.tenant,
            request.session_id,
            "suspend",
            "waits for approval",
            request.values["requested_by"],
            ("{}", None),
            ("{}", None),
            fence=request.fence,
        )
        yield from move_locked(row, fired, "suspend")
    yield from set_row(row, {"pending_approvals": row["pending_approvals"] + 1})
    return values | {"resolved_by": None, "resolved_at": None, "note": None}


APPROVAL = Statement(
    sa.select(*t.approvals.c)
    .where(of_key(t.approvals), t.approvals.c.approval_id == p("approval_id"))
    .with_for_update()
)


_WAITING = Statement(
    sa.select(sa.func.count().label("waiting")).where(
        of_key(t.approvals), t.approvals.c.state == "pending", t.approvals.c.suspended.is_(True)
    )
)


def resolve_approval(request: r.ResolveApproval) -> Recipe:
    """Decide; resume what the request suspended, once nothing else waits."""
    row = yield from lock(request)
    if row is None:
        return None
    found = yield APPROVAL, key(request) | {"p_approval_id": request.approval_id}
    if not found or found[0]["state"] != "pending":
        return found[0] if found else None
    approval = found[0]
    late = approval["expires_at"] is not None and approval["expires_at"] <= row["now"]
    state = "expired" if late else request.state
    yield from decide(row, approval, state, request.by, request.note)
    return approval


def decide(row: Row, approval: Row, state: str, by: str | None, note: str | None) -> Recipe:
    """Decide a locked approval."""
    values = {"state": state, "resolved_by": by, "resolved_at": row["now"], "note": note}
    yield setting(t.approvals, {**own_key(row), "approval_id": approval["approval_id"]}, values)
    approval.update(values)
    yield from set_row(row, {"pending_approvals": max(0, row["pending_approvals"] - 1)})
    if approval["suspended"] and row["state"] == "suspended":
        (rest,) = yield _WAITING, {"p_tenant": row["tenant"], "p_session_id": row["session_id"]}
        if not rest["waiting"]:
            fired = r.Move(
                row["tenant"], row["session_id"], "resume", f"approval {state}", by, ("{}", None), ("{}", None)
            )
            yield from move_locked(row, fired, "resume")


@cache
def approvals_statement(tenant: bool, session: bool, state: str | None) -> Statement:
    """A list of approvals."""
    chosen = sa.select(*t.approvals.c)
    if tenant:
        chosen = chosen.where(t.approvals.c.tenant == p("tenant"))
    if session:
        chosen = chosen.where(t.approvals.c.session_id == p("session_id"))
    if state is not None:
        # Spelt out, as the index of the pending ones needs it.
        chosen = chosen.where(is_in(t.approvals.c.state, (state,)))
    return Statement(
        chosen.order_by(t.approvals.c.requested_at, t.approvals.c.approval_id).limit(p("limit", sa.Integer()))
    )


def list_approvals(request: r.ListApprovals) -> Recipe:
    """Read approvals."""
    statement = approvals_statement(request.tenant is not None, request.session_id is not None, request.state)
    names = ("tenant", "session_id", "limit")
    return (yield statement, bound({name: getattr(request, name) for name in names}))


def open_connection(request: r.OpenConnection) -> Recipe:
    """Insert, or take over the row of the same id."""
    row = yield from lock(request)
    if row is None or row["state"] not in states.LIVE:
        return None
    own = {**own_key(row), "connection_id": request.connection_id}
    values = {
        "client": request.client,
        "opened_at": row["now"],
        "beat_at": row["now"],
        "silent_at": deadlines.minute(row["now"]),
    }
    if (yield setting(t.connections, own, values)) == 0:
        yield insert(t.connections, tuple(own | values)), bound(own | values)
    yield from set_row(row, active_now(row))
    return own | values


def beat_connection(request: r.BeatConnection) -> Recipe:
    """Renew a connection's and its session's sign of life."""
    row = yield from lock(request)
    if row is None:
        return False
    own = {**own_key(row), "connection_id": request.connection_id}
    beat = {"beat_at": row["now"], "silent_at": deadlines.minute(row["now"])}
    if (yield setting(t.connections, own, beat)) == 0:
        return False
    if row["state"] in states.LIVE:
        yield from set_row(row, active_now(row))
    return True


_CLOSE = Statement(
    sa.delete(t.connections).where(of_key(t.connections), t.connections.c.connection_id == p("connection_id"))
)


def close_connection(request: r.CloseConnection) -> Recipe:
    """Remove a connection."""
    return bool((yield _CLOSE, key(request) | {"p_connection_id": request.connection_id}))


@cache
def connections_statement(tenant: bool, session: bool) -> Statement:
    """A list of connections."""
    chosen = sa.select(*t.connections.c)
    if tenant:
        chosen = chosen.where(t.connections.c.tenant == p("tenant"))
    if session:
        chosen = chosen.where(t.connections.c.session_id == p("session_id"))
    return Statement(chosen.order_by(t.connections.c.opened_at, t.connections.c.connection_id))


def list_connections(request: r.ListConnections) -> Recipe:
    """Read connections."""
    statement = connections_statement(request.tenant is not None, request.session_id is not None)
    return (yield statement, bound({"tenant": request.tenant, "session_id": request.session_id}))
