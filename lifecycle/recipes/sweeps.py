"""Sweeps: one predicate for each, used by the dry run and repeated by the write."""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import sqlalchemy as sa

from lifecycle import deadlines, states
from lifecycle.models import tables as t
from lifecycle.models.types import Timestamp, now
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import LOCK, NOW, Recipe, Row, audit_row, bound, is_in, of_key, p, setting
from lifecycle.recipes.portable.moves import moved_columns
from lifecycle.recipes.portable.people import APPROVAL, decide
from lifecycle.recipes.portable.sessions import drop
from lifecycle.recipes.portable.together import alike, set_these
from lifecycle.recipes.statement import Many, Statement

_UNPROTECTED = sa.text("NOT sessions.protected")


def _free(columns: Any) -> Any:
    return sa.or_(
        columns.lease_holder.is_(None),
        columns.lease_expires_at.is_(None),
        columns.lease_expires_at <= p("now", Timestamp()),
    )


def predicate(due: r.Due) -> tuple[sa.Table, Any, Any]:
    """The table, the condition, and the deadline that orders what is due."""
    columns = t.sessions.c
    at, cutoff = p("now", Timestamp()), p("cutoff", Timestamp())
    if due.sweep == "expire_approvals":
        table, order = t.approvals, t.approvals.c.expires_at
        match = [sa.text("session_approvals.state = 'pending'"), order <= at]
    elif due.sweep == "reap_connections":
        table, order = t.connections, t.connections.c.beat_at
        match = [t.connections.c.silent_at <= cutoff, order <= cutoff]
    else:
        table = t.sessions
        match = [_UNPROTECTED, _free(columns)]
        if due.sweep == "expire_idle":
            order = columns.expires_at
            match += [is_in(columns.state, states.LIVE), columns.deleted_at.is_(None), order <= at]
        elif due.sweep == "delete_ghosts":
            order = columns.ghost_at
            match += [
                order <= at,
                is_in(columns.state, states.LIVE),
                columns.message_count == sa.literal_column("0"),
                columns.deleted_at.is_(None),
                columns.saved_at.is_(None),
            ]
        elif due.sweep == "cleanup_stale_sessions":
            order = columns.listed_at
            match += [
                is_in(columns.state, due.states),
                columns.deleted_at.is_(None),
                order <= cutoff,
                columns.last_active_at <= cutoff,
            ]
        else:
            order, more = _finished(due, at, cutoff)
            match += more
    if due.tenant is not None:
        match.append(table.c.tenant == p("tenant"))
    if due.kind is not None:
        match.append(columns.kind == p("kind"))
    if due.where is not None:
        match.append(due.where)
    return table, sa.and_(*match), order


def _finished(due: r.Due, at: Any, cutoff: Any) -> tuple[Any, list[Any]]:
    columns = t.sessions.c
    chosen = is_in(columns.state, due.states)
    if due.seconds is None:
        # What is hidden was stamped as it was hidden, whatever its state.
        return columns.prune_at, [columns.prune_at <= at, sa.or_(chosen, columns.deleted_at.is_not(None))]
    if set(due.states) <= set(states.TERMINAL):
        return columns.ended_at, [chosen, columns.ended_at <= cutoff]
    idle = sa.and_(columns.ended_at.is_(None), columns.last_active_at <= cutoff)
    return columns.listed_at, [chosen, columns.listed_at <= cutoff, sa.or_(columns.ended_at <= cutoff, idle)]


def values_of(due: r.Due, at: datetime) -> Row:
    """The predicate's parameters at a time."""
    cutoff = at - timedelta(seconds=due.seconds or 0)
    return bound({"now": at, "cutoff": cutoff, "tenant": due.tenant, "kind": due.kind})


# The index that has the order of each deadline. MariaDB rather reads all that a tenant has, and sorts it; and where rows
# are locked as they are read, that is all of the tenant's.
_ORDERED = {
    "expires_at": "ix_sessions_due",
    "prune_at": "ix_sessions_finished",
    "ended_at": "ix_sessions_ended",
    "ghost_at": "ix_sessions_ghosts",
}


def in_order(chosen: Any, table: sa.Table, order: Any) -> Any:
    """The rows in the order of their deadlines, read in that order."""
    index = _ORDERED.get(order.name) if table is t.sessions else None
    if index is not None:
        chosen = chosen.with_hint(table, f"FORCE INDEX ({index})", "mysql")
    return chosen.order_by(order)


def _shape(due: r.Due) -> tuple[Any, ...]:
    return due.tenant is not None, due.sweep, due.kind is not None, due.states, due.seconds is not None


def _due_of(shape: tuple[Any, ...]) -> r.Due:
    tenant, sweep, kind, chosen, seconds = shape
    return r.Due("" if tenant else None, sweep, "" if kind else None, chosen, 1 if seconds else None)


def _count(due: r.Due) -> Statement:
    table, match, order = predicate(due)
    oldest = sa.func.min(order, type_=Timestamp()).label("oldest")
    return Statement(sa.select(sa.func.count().label("n"), oldest).select_from(table).where(match))


def _oldest(due: r.Due) -> Statement:
    table, match, order = predicate(due)
    chosen = sa.select(order.label("oldest")).select_from(table).where(match)
    return Statement(in_order(chosen, table, order).limit(sa.literal_column("1")))


def batch_of(due: r.Due, since: bool, *columns: Any) -> Any:
    """What is due, in the order of the deadlines: so many rows, with `since` from a deadline on."""
    table, match, order = predicate(due)
    chosen = sa.select(*(columns or table.c)).where(match)
    if since:
        chosen = chosen.where(order >= p("since", Timestamp()))
    chosen = in_order(chosen, table, order).limit(p("limit", sa.Integer()))
    return chosen.with_for_update(skip_locked=True) if table is t.sessions else chosen


def _batch(due: r.Due, since: bool) -> Statement:
    return Statement(batch_of(due, since))


@cache
def _kept(make: Callable[..., Statement], shape: tuple[Any, ...], *more: bool) -> Statement:
    return make(_due_of(shape), *more)


def statement(make: Callable[..., Statement], due: r.Due, *more: bool) -> Statement:
    """The statement for a sweep, kept unless the caller has a condition of its own."""
    return make(due, *more) if due.where is not None else _kept(make, _shape(due), *more)


def batch_statement(make: Callable[..., Statement], request: r.SweepBatch, at: datetime) -> tuple[Statement, Row]:
    """That of a batch with its values."""
    values = values_of(request.due, at) | bound({"limit": request.limit, "since": request.since})
    return statement(make, request.due, request.since is not None), values


@cache
def _deadline(shape: tuple[Any, ...]) -> Any:
    _, _, order = predicate(_due_of(shape))
    return order


def deadline_of(due: r.Due) -> Any:
    """The column that orders what is due."""
    return _deadline(_shape(due))


def last_of(due: r.Due, found: list[Row]) -> datetime | None:
    """The latest deadline among the rows of a batch."""
    return found[-1][deadline_of(due).name] if found else None


def count_due(request: r.CountDue) -> Recipe:
    """Count with the sweep's own predicate."""
    (clock,) = yield NOW, {}
    (row,) = yield statement(_count, request.due), values_of(request.due, clock["now"])
    return row["n"], row["oldest"], clock["now"]


def oldest_due(request: r.OldestDue, clock_statement: Statement = NOW) -> Recipe:
    """Read the oldest deadline that is due."""
    (clock,) = yield clock_statement, {}
    found = yield statement(_oldest, request.due), values_of(request.due, clock["now"])
    return (found[0]["oldest"] if found else None), clock["now"]


def sweep_batch(request: r.SweepBatch) -> Recipe:
    """Lock what is due, passing over what others hold, and act on it."""
    (clock,) = yield NOW, {}
    at = clock["now"]
    found = yield batch_statement(_batch, request, at)
    if not found:
        return []
    last = last_of(request.due, found)
    match request.due.sweep:
        case "expire_idle":
            yield from finish(found, at, request, "expire")
        case "cleanup_stale_sessions":
            yield from finish(found, at, request, "end")
        case "expire_approvals":
            return (yield from _expire_approvals(found, request, last))
        case "reap_connections":
            yield Many(_REAP, [_reap_key(row) | values_of(request.due, at) for row in found])
        case _:
            yield from drop([row | {"now": at} for row in found], request)
    return r.SweptIds.of(found, last)


# What differs from one session to the next; and where somebody's lease, which ran out, ends with it.
_COUNTED: tuple[tuple[str, Any], ...] = (
    ("version", t.sessions.c.version + sa.literal_column("1")),
    ("next_seq", t.sessions.c.next_seq + sa.literal_column("1")),
)
_TAKEN = (*_COUNTED, ("lease_epoch", t.sessions.c.lease_epoch + sa.literal_column("1")))


def finish(found: list[Row], at: datetime, request: r.SweepBatch, trigger: str) -> Recipe:
    """Move locked sessions to a terminal state, with an audit row each."""
    target = states.transition(trigger).target
    moved: list[tuple[Row, Row]] = []
    audits: list[tuple[Statement, Row]] = []
    for row in found:
        row["now"] = at
        fired = r.Move(
            row["tenant"], row["session_id"], trigger, request.reason, request.actor, request.retention, ("{}", None)
        )
        values = moved_columns(row, fired, target)
        note = {"reason": request.reason, "actor": request.actor}
        audits.append(audit_row(row, row["next_seq"], trigger, row["state"], target, values["version"], **note))
        taken = values["lease_epoch"] != row["lease_epoch"]
        for name, _ in _TAKEN:
            del values[name]
        moved.append((row, {**values, "taken": taken}))
    for values, rows in alike(moved):
        own = _TAKEN if values.pop("taken") else _COUNTED
        yield from set_these(rows, values, own)
    yield Many(audits[0][0], [values for _, values in audits])


_REAP = Statement(
    sa.delete(t.connections).where(
        of_key(t.connections),
        t.connections.c.connection_id == p("connection_id"),
        t.connections.c.beat_at <= p("cutoff", Timestamp()),
    )
)


def _reap_key(row: Row) -> Row:
    return bound({name: row[name] for name in ("tenant", "session_id", "connection_id")})


def _expire_approvals(found: list[Row], request: r.SweepBatch, last: datetime | None) -> Recipe:
    expired = []
    for seen in sorted(found, key=lambda row: (row["tenant"], row["session_id"], row["approval_id"])):
        # The session first, then the approval: the order in which every call locks them.
        own = {"p_tenant": seen["tenant"], "p_session_id": seen["session_id"]}
        locked = yield LOCK, own
        if not locked:
            continue
        row = locked[0]
        fresh = yield APPROVAL, own | {"p_approval_id": seen["approval_id"]}
        if fresh and fresh[0]["state"] == "pending":
            yield from decide(row, fresh[0], "expired", request.actor, request.reason)
            expired.append(seen)
    return r.SweptIds.of(expired, last)


_TRIM = {
    "tombstones": (t.transitions, ("id",), t.transitions.c.to_state.is_(None)),
    "tokens": (t.tokens, ("tenant", "session_id", "token"), sa.true()),
    "samples": (t.samples, ("tenant", "name", "sampled_at"), sa.true()),
    "attempts": (t.idempotency_keys, ("tenant", "caller", "idempotency_key"), sa.true()),
}


def _old(name: str, tenant: bool) -> tuple[sa.Table, Any]:
    table, columns, more = _TRIM[name]
    made_at = table.c.sampled_at if table is t.samples else table.c.created_at
    old = sa.select(*[table.c[column] for column in columns]).where(more, made_at <= p("cutoff", Timestamp()))
    if tenant:
        old = old.where(table.c.tenant == p("tenant"))
    return table, old.order_by(made_at).limit(p("limit", sa.Integer()))


@cache
def _trim_statements(name: str, tenant: bool) -> tuple[Statement, Statement]:
    table, old = _old(name, tenant)
    by_key = [table.c[column.name] == p(column.name, column.type) for column in old.selected_columns]
    return Statement(old), Statement(sa.delete(table).where(*by_key))


@cache
def _trim_at_once(name: str, tenant: bool) -> Statement:
    table, old = _old(name, tenant)
    return Statement(sa.delete(table).where(sa.tuple_(*[table.c[one.name] for one in old.selected_columns]).in_(old)))


def _of_trim(request: r.Trim, clock: Row) -> Row:
    cutoff = clock["now"] - timedelta(seconds=request.older_than)
    return bound({"cutoff": cutoff, "limit": request.limit, "tenant": request.tenant})


def trim(request: r.Trim) -> Recipe:
    """Remove what is older than it is kept; the number removed."""
    (clock,) = yield NOW, {}
    old, drop = _trim_statements(request.table, request.tenant is not None)
    found = yield old, _of_trim(request, clock)
    if found:
        yield Many(drop, [bound(row) for row in found])
    return len(found)


def trim_at_once(request: r.Trim, clock_statement: Statement = NOW) -> Recipe:
    """The same in one statement, where a subquery may have a limit."""
    (clock,) = yield clock_statement, {}
    return (yield _trim_at_once(request.table, request.tenant is not None), _of_trim(request, clock))


@cache
def _walk(tenant: bool) -> Statement:
    columns = t.sessions.c
    past = sa.or_(
        columns.tenant > p("after_tenant"),
        sa.and_(columns.tenant == p("after_tenant"), columns.session_id > p("after_id")),
    )
    chosen = sa.select(*columns, now().label("now")).where(past)
    if tenant:
        chosen = chosen.where(columns.tenant == p("tenant"))
    return Statement(
        chosen.order_by(columns.tenant, columns.session_id).limit(p("limit", sa.Integer())).with_for_update()
    )


def restamp(request: r.Restamp) -> Recipe:
    """Reckon the deadlines of a batch anew."""
    found = yield (
        _walk(request.tenant is not None),
        bound({
            "tenant": request.tenant, "after_tenant": request.after[0], "after_id": request.after[1],
            "limit": request.limit,
        }),
    )  # fmt: skip
    changed = [(row, values) for row in found if (values := restamped(row, request.policies))]
    if changed and not request.dry_run:
        sets = [
            setting(t.sessions, {"tenant": row["tenant"], "session_id": row["session_id"]}, v) for row, v in changed
        ]
        yield Many(sets[0][0], [values for _, values in sets])
    last = (found[-1]["tenant"], found[-1]["session_id"]) if len(found) == request.limit else None
    return last, len(changed)


def restamped(row: Row, policies: Any) -> Row:
    """The deadlines of a session by its policy; empty where they are what they should be."""
    values = _stamped(row, policies.for_kind(row["kind"]))
    return values if any(row[name] != value for name, value in values.items()) else {}


def _stamped(row: Row, policy: Any) -> Row:
    idle_active = row["idle_active"] if row["idle_override"] else policy.idle_active
    values: Row = {
        "idle_active": idle_active,
        "idle_suspended": policy.idle_suspended,
        "max_age_at": deadlines.later(row["created_at"], policy.max_age),
    }
    if row["state"] in states.LIVE:
        idle = idle_active if row["state"] == "active" else policy.idle_suspended
        values["expires_at"] = deadlines.expiry(row["last_active_at"], idle, values["max_age_at"])
        values["prune_at"] = row["prune_at"]
    else:
        values["expires_at"] = None
        values["prune_at"] = deadlines.later(row["ended_at"], policy.retention(row["state"]))
    if row["deleted_at"] is not None:
        # What is hidden is kept for as long from then on, whatever its state was.
        ended = row["state"] if row["state"] in states.TERMINAL else "ended"
        values["prune_at"] = deadlines.later(row["deleted_at"], policy.retention(ended))
    return values
