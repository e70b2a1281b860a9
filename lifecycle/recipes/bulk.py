"""Sweeps on PostgreSQL: a batch is a statement or two, however many sessions are in it.

What is due is locked first, passing over what others hold. Children are removed by a later statement of the
transaction, which sees what was committed until then: none of them is left behind.
"""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from lifecycle import states
from lifecycle.models import tables as t
from lifecycle.models.types import now
from lifecycle.operations import requests as r
from lifecycle.recipes import sweeps
from lifecycle.recipes.archiving import removing
from lifecycle.recipes.portable.base import NOW, Recipe, Row, bound, is_in, p
from lifecycle.recipes.postgresql import audit_of, moved_values
from lifecycle.recipes.postgresql_arrays import array
from lifecycle.recipes.postgresql_chunks import TEXTS
from lifecycle.recipes.statement import Statement

S = t.sessions.c
_FINISH = {"expire_idle": "expire", "cleanup_stale_sessions": "end"}
_REMOVE = ("prune_sessions", "delete_ghosts")


# For the length of a transaction, so that each batch reads what it acts on and no more. Where statistics are from before
# so much was due, the planner would rather read all that is due and sort it, for every batch again. Where a plan is kept
# from when a table was empty, every session would be looked for in all of it. Compiling takes longer than a batch.
_SETTINGS = dict.fromkeys(
    ("enable_bitmapscan", "enable_sort", "enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"), "off"
) | {"plan_cache_mode": "force_custom_plan"}


def _set(name: str, value: str) -> Any:
    words: list[Any] = [sa.literal_column(f"'{word}'") for word in (name, value)]
    return sa.func.set_config(*words, sa.true()).label(name)


_CLOCK = Statement(sa.select(now().label("now"), *[_set(name, value) for name, value in _SETTINGS.items()]))


def _clock(due: r.Due) -> Statement:
    # Over all tenants there is no index on `listed_at`, and what a caller's own condition needs is not known.
    return NOW if sweeps.deadline_of(due) is S.listed_at or due.where is not None else _CLOCK


def oldest_due(request: r.OldestDue) -> Recipe:
    """Read the oldest deadline that is due."""
    return (yield from sweeps.oldest_due(request, _clock(request.due)))


def trim(request: r.Trim) -> Recipe:
    """Remove what is older than it is kept; the number removed."""
    return (yield from sweeps.trim_at_once(request, _CLOCK))


def _pick(due: r.Due, since: bool) -> Statement:
    return Statement(sweeps.batch_of(due, since, S.tenant, S.session_id, sweeps.deadline_of(due)))


def _pick_whole(due: r.Due, since: bool) -> Statement:
    return Statement(sweeps.batch_of(due, since, *t.sessions.c))


def _finish(due: r.Due, since: bool) -> Statement:
    """Lock what is due, move it, and write an audit row for each."""
    trigger = _FINISH[due.sweep]
    columns = S.tenant, S.session_id, S.state.label("from_state"), sweeps.deadline_of(due).label("deadline")
    locked = sweeps.batch_of(due, since, *columns).cte("due")
    moved = (
        sa.update(t.sessions)
        .where(
            S.tenant == locked.c.tenant,
            S.session_id == locked.c.session_id,
            is_in(locked.c.from_state, states.transition(trigger).sources),
        )
        .values(moved_values(trigger))
        .returning(S.tenant, S.session_id, S.next_seq, S.state, S.version, locked.c.from_state, locked.c.deadline)
        .cte("moved")
    )
    audit = audit_of(moved, sa.literal_column(f"'{trigger}'"), moved.c.from_state, moved.c.state)
    return Statement(sa.select(moved.c.tenant, moved.c.session_id, moved.c.deadline).add_cte(audit))


def _remove() -> Statement:
    """Remove sessions that are locked with all they own, leaving an audit row each."""
    # Each as one text: a driver's adapting a list, for every key, costs more than removing what is not there.
    lists = [sa.cast(p(name, sa.Text()), TEXTS) for name in ("tenants", "ids")]
    given = sa.func.unnest(*lists).table_valued("tenant", "session_id", name="given").render_derived()
    keys = sa.select(given.c.tenant, given.c.session_id).cte("keys")

    def of_keys(table: sa.Table) -> Any:
        return sa.delete(table).where(table.c.tenant == keys.c.tenant, table.c.session_id == keys.c.session_id)

    gone = (
        of_keys(t.sessions)
        .returning(S.tenant, S.session_id, (S.next_seq + sa.literal_column("1")).label("next_seq"), S.state, S.version)
        .cte("gone")
    )
    children = [of_keys(table).cte(f"of_{table.name}") for table in (*t.CHILDREN, t.transitions)]
    audit = audit_of(gone, sa.literal_column("'delete'"), gone.c.state, sa.null())
    return Statement(sa.select(gone.c.session_id).add_cte(*children, audit))


_REMOVE_THESE = _remove()


def sweep_batch(request: r.SweepBatch) -> Recipe:
    """Act on a batch of what is due: the ids acted on."""
    due = request.due
    if due.sweep not in _FINISH and due.sweep not in _REMOVE:
        return (yield from sweeps.sweep_batch(request))
    (clock,) = yield _clock(due), {}
    note = bound({"reason": request.reason, "actor": request.actor})
    if due.sweep in _FINISH:
        chosen, values = sweeps.batch_statement(_finish, request, clock["now"])
        retention = bound({"retention_map": request.retention[0], "retention_default": request.retention[1]})
        done = yield chosen, values | note | retention
        return r.SweptIds.of(done, max((row["deadline"] for row in done), default=None))
    make: Callable[..., Statement] = _pick if request.archive is None else _pick_whole
    picked = yield sweeps.batch_statement(make, request, clock["now"])
    yield from removing(picked, request, lambda: _removed(picked, note))
    return r.SweptIds.of(picked, sweeps.last_of(due, picked))


def _removed(picked: list[Row], note: Row) -> Recipe:
    if picked:
        tenants, ids = (array(row[name] for row in picked) for name in ("tenant", "session_id"))
        yield _REMOVE_THESE, bound({"tenants": tenants, "ids": ids}) | note
