"""Sweeps on Citus: a plain read picks what is due, and the write names it and repeats the whole predicate.

Nothing locks rows of several nodes at once. What changed in between is left alone.
The sessions' rows go first where sessions are removed: from then on they are locked, so that nothing is added to what
the following statements remove.
"""

from datetime import timedelta
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.sql import visitors

from lifecycle import states
from lifecycle.models import tables as t
from lifecycle.models.types import Timestamp, now
from lifecycle.operations import requests as r
from lifecycle.recipes import citus_keys as keys
from lifecycle.recipes import sweeps
from lifecycle.recipes.archiving import removing
from lifecycle.recipes.portable.base import LOCK, NOW, Recipe, Row, bound, own_key, p, set_row
from lifecycle.recipes.postgresql import _seconds_for, moved_values
from lifecycle.recipes.statement import Statement
from lifecycle.transfer.rows import key

S = t.sessions.c
_NOW: Any = p("now", Timestamp())
# What a write compares beside the predicate, and writes into the audit log.
_SEEN: Final = (*keys.KEY, "state")
_FINISH: Final = {"expire_idle": "expire", "cleanup_stale_sessions": "end"}
_REMOVE: Final = ("prune_sessions", "delete_ghosts")
# Of those that were picked some may have changed before the write. So often it is looked again what is due.
_ROUNDS: Final = 5


def at_now(value: Any) -> Any:
    """The expression with the time that was read before: a CASE may not ask for it on Citus."""

    def replace(element: Any, **_: Any) -> Any:
        return _NOW if isinstance(element, now) else None

    return visitors.replacement_traverse(value, {}, replace)


def later(seconds: Any) -> Any:
    """So many seconds after the time that was read before; NULL for never.

    Adding an interval is no constant matter to PostgreSQL, as days have more or fewer hours, and so no function that
    Citus lets an UPDATE apply to a column.
    """
    return sa.func.to_timestamp(p("epoch", sa.Double()) + seconds, type_=Timestamp())


def _still(due: r.Due, given: Any) -> Any:
    """That a session is one that was picked, and due as it was."""
    _, match, _ = sweeps.predicate(due)
    # What asks other tables was asked as it was picked. A saved state clears `ghost_at`, which is compared here.
    repeated = [condition for condition in match.clauses if not _asks(condition)]
    own = [] if due.where is None else [due.where]
    return sa.and_(keys.same(t.sessions, given, _SEEN), *repeated, *own)


def _asks(condition: Any) -> bool:
    return any(isinstance(element, sa.SelectBase) for element in visitors.iterate(condition))


def _pick(due: r.Due) -> Statement:
    _, match, order = sweeps.predicate(due)
    chosen = sa.select(*(S[name] for name in _SEEN)).where(match)
    return Statement(chosen.order_by(order).limit(p("limit", sa.Integer())))


def _finish(due: r.Due) -> Statement:
    given = keys.of(t.sessions, _SEEN)
    values = {name: at_now(value) for name, value in moved_values(_FINISH[due.sweep]).items()}
    values["prune_at"] = later(_seconds_for(S.kind, "retention"))
    seq = (S.next_seq - sa.literal_column("1")).label("seq")
    changed = sa.update(t.sessions).where(_still(due, given)).values(values)
    return Statement(changed.returning(S.tenant, S.session_id, seq, S.version))


def _remove(due: r.Due) -> Statement:
    given = keys.of(t.sessions, _SEEN)
    return Statement(sa.delete(t.sessions).where(_still(due, given)).returning(*S))


@cache
def _log(trigger: str, target: str | None) -> Statement:
    return keys.log(trigger, target)


_DROPS: Final = tuple(keys.delete(table) for table in (*t.CHILDREN, t.transitions))


def sweep_batch(request: r.SweepBatch) -> Recipe:
    """Act on a batch of what is due: the ids acted on."""
    due = request.due
    if due.sweep not in _FINISH and due.sweep not in _REMOVE:
        return (yield from sweeps.sweep_batch(request))
    (clock,) = yield NOW, {}
    at = clock["now"]
    values = sweeps.values_of(due, at) | bound({"reason": request.reason, "actor": request.actor})
    values |= bound({"epoch": at.timestamp(), "retention_map": request.retention[0],
                     "retention_default": request.retention[1]})  # fmt: skip
    write = _finish if due.sweep in _FINISH else _remove
    done: list[Row] = []
    before: dict[tuple[str, str], str] = {}
    for _ in range(_ROUNDS):
        wanted = request.limit - len(done)
        picked = yield sweeps.statement(_pick, due), values | {"p_limit": wanted}
        if not picked:
            break
        before |= {key(row): row["state"] for row in picked}
        written = yield sweeps.statement(write, due), values | keys.values_of(picked, _SEEN)
        done += written
        if len(written) == len(picked):
            break
    if done and due.sweep in _FINISH:
        trigger = _FINISH[due.sweep]
        lines = [{**row, "from_state": before[key(row)]} for row in done]
        yield _log(trigger, states.transition(trigger).target), values | keys.lines(lines)
    elif done:
        yield from removing(done, request, lambda: _bury(done, values))
    return r.SweptIds.of(done)


def _bury(gone: list[Row], values: Row) -> Recipe:
    """Remove what belonged to sessions, leaving an audit row each."""
    for drop in _DROPS:
        yield drop, keys.values_of(gone)
    lines = [{**row, "seq": row["next_seq"], "from_state": row["state"]} for row in gone]
    yield _log("delete", None), values | keys.lines(lines)


_TRIM: Final[dict[str, tuple[sa.Table, tuple[str, ...], Any]]] = {
    "tombstones": (t.transitions, (*keys.KEY, "id"), t.transitions.c.to_state.is_(None)),
    "tokens": (t.tokens, (*keys.KEY, "token"), sa.true()),
}


@cache
def _trim(name: str, tenant: bool) -> tuple[Statement, Statement]:
    table, names, more = _TRIM[name]
    old = sa.select(*(table.c[column] for column in names)).where(more, table.c.created_at <= p("cutoff", Timestamp()))
    if tenant:
        old = old.where(table.c.tenant == p("tenant"))
    limited = old.order_by(table.c.created_at).limit(p("limit", sa.Integer()))
    return Statement(limited), keys.delete(table, names)


def trim(request: r.Trim) -> Recipe:
    """Remove what is older than it is kept."""
    if request.table not in _TRIM:
        return (yield from sweeps.trim(request))
    (clock,) = yield NOW, {}
    old, drop = _trim(request.table, request.tenant is not None)
    cutoff = clock["now"] - timedelta(seconds=request.older_than)
    found = yield old, bound({"cutoff": cutoff, "limit": request.limit, "tenant": request.tenant})
    if found:
        yield drop, keys.values_of(found, _TRIM[request.table][1])
    return len(found)


@cache
def _walk(tenant: bool) -> Statement:
    past = sa.or_(
        S.tenant > p("after_tenant"), sa.and_(S.tenant == p("after_tenant"), S.session_id > p("after_id"))
    )  # fmt: skip
    chosen = sa.select(*S).where(past)
    if tenant:
        chosen = chosen.where(S.tenant == p("tenant"))
    return Statement(chosen.order_by(S.tenant, S.session_id).limit(p("limit", sa.Integer())))


def restamp(request: r.Restamp) -> Recipe:
    """Reckon the deadlines of a batch anew: read them together, and lock one by one what is to change."""
    found = yield (
        _walk(request.tenant is not None),
        bound({
            "tenant": request.tenant, "after_tenant": request.after[0], "after_id": request.after[1],
            "limit": request.limit,
        }),
    )  # fmt: skip
    changed = 0
    for seen in found:
        if not sweeps.restamped(seen, request.policies):
            continue
        if request.dry_run:
            changed += 1
            continue
        for row in (yield LOCK, bound(own_key(seen))):
            if values := sweeps.restamped(row, request.policies):
                yield from set_row(row, values)
                changed += 1
    last = (found[-1]["tenant"], found[-1]["session_id"]) if len(found) == request.limit else None
    return last, changed
