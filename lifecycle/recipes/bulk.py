"""Sweeps on PostgreSQL: a batch is a handful of statements, however many sessions are in it.

What is due is locked first, passing over what others hold. Children are removed by later statements of the
transaction, which see what was committed until then: none of them is left behind.
"""

from typing import Any

import sqlalchemy as sa

from lifecycle import states
from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.recipes import sweeps
from lifecycle.recipes.archiving import removing
from lifecycle.recipes.portable.base import NOW, Recipe, Row, bound, is_in, p
from lifecycle.recipes.postgresql import TEXTS, audit_of, moved_values
from lifecycle.recipes.statement import Statement

S = t.sessions.c
_FINISH = {"expire_idle": "expire", "cleanup_stale_sessions": "end"}
_REMOVE = ("prune_sessions", "delete_ghosts")


def _due(due: r.Due, *chosen_columns: Any) -> Any:
    _, match, order = sweeps.predicate(due)
    chosen = sa.select(*(chosen_columns or (S.tenant, S.session_id, S.state.label("from_state")))).where(match)
    return chosen.order_by(order).limit(p("limit", sa.Integer())).with_for_update(skip_locked=True)


def _pick(due: r.Due) -> Statement:
    return Statement(_due(due))


def _pick_whole(due: r.Due) -> Statement:
    return Statement(_due(due, *t.sessions.c))


def _finish(due: r.Due) -> Statement:
    """Lock what is due, move it, and write an audit row for each."""
    trigger = _FINISH[due.sweep]
    locked = _due(due).cte("due")
    moved = (
        sa.update(t.sessions)
        .where(
            S.tenant == locked.c.tenant,
            S.session_id == locked.c.session_id,
            is_in(locked.c.from_state, states.transition(trigger).sources),
        )
        .values(moved_values(trigger))
        .returning(S.tenant, S.session_id, S.next_seq, S.state, S.version, locked.c.from_state)
        .cte("moved")
    )
    audit = audit_of(moved, sa.literal_column(f"'{trigger}'"), moved.c.from_state, moved.c.state)
    return Statement(sa.select(moved.c.tenant, moved.c.session_id).add_cte(audit))


def _keys() -> Any:
    given = sa.func.unnest(p("tenants", TEXTS), p("ids", TEXTS)).table_valued("tenant", "session_id", name="keys")
    return given.render_derived()


def _of_keys(table: sa.Table) -> Any:
    keys = _keys()
    return sa.delete(table).where(table.c.tenant == keys.c.tenant, table.c.session_id == keys.c.session_id)


_DROPS = tuple(Statement(_of_keys(table)) for table in (*t.CHILDREN, t.transitions))
_GONE = (
    _of_keys(t.sessions)
    .returning(S.tenant, S.session_id, (S.next_seq + sa.literal_column("1")).label("next_seq"), S.state, S.version)
    .cte("gone")
)
# The sessions go last, leaving an audit row each.
_BURY = Statement(
    sa.select(_GONE.c.session_id).add_cte(
        audit_of(_GONE, sa.literal_column("'delete'"), _GONE.c.state, sa.null()),
    )
)


def sweep_batch(request: r.SweepBatch) -> Recipe:
    """Act on a batch of what is due: the ids acted on."""
    due = request.due
    if due.sweep not in _FINISH and due.sweep not in _REMOVE:
        return (yield from sweeps.sweep_batch(request))
    (clock,) = yield NOW, {}
    values = sweeps.values_of(due, clock["now"]) | {"p_limit": request.limit}
    note = bound({"reason": request.reason, "actor": request.actor})
    if due.sweep in _FINISH:
        retention = bound({"retention_map": request.retention[0], "retention_default": request.retention[1]})
        done = yield sweeps.statement(_finish, due), values | note | retention
        return r.SweptIds.of(done)
    picked = yield sweeps.statement(_pick if request.archive is None else _pick_whole, due), values
    yield from removing(picked, request, lambda: _remove(picked, note))
    return r.SweptIds.of(picked)


def _remove(picked: list[Row], note: Row) -> Recipe:
    if picked:
        keys = bound({"tenants": [row["tenant"] for row in picked], "ids": [row["session_id"] for row in picked]})
        for statement in _DROPS:
            yield statement, keys
        yield _BURY, keys | note
