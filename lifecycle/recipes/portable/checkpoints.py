"""Checkpoints on any database: what the saved state says at a moment, sharing what it says it with."""

from functools import cache
from typing import Any

import sqlalchemy as sa

from lifecycle import states
from lifecycle.entries import columns_of, runs_of, within
from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.pieces import names_in
from lifecycle.recipes.portable.assembling import assembled
from lifecycle.recipes.portable.base import (
    GET,
    Recipe,
    Row,
    active_now,
    barred,
    bound,
    changed_now,
    insert,
    key,
    lock,
    of_key,
    own_key,
    p,
    padded,
    set_row,
    setting,
)
from lifecycle.recipes.portable.collecting import collect
from lifecycle.recipes.portable.saving import STATE
from lifecycle.recipes.statement import Statement

ENTRIES = ("next_entry", "entries_from", "entries_before")
DOCUMENTS = ("context", "context_pieces", "plan", "plan_pieces")

_CHECKPOINTS = Statement(
    sa.select(
        *[
            t.checkpoints.c[name]
            for name in ("session_id", "seq", "label", "data", "phase", "step", "version", "created_at")
        ]
    )
    .where(of_key(t.checkpoints))
    .order_by(t.checkpoints.c.seq)
)


CHECKPOINT = Statement(sa.select(*t.checkpoints.c).where(of_key(t.checkpoints), t.checkpoints.c.seq == p("seq")))


def make_checkpoint(request: r.MakeCheckpoint) -> Recipe:
    """Copy the state; the session's lock keeps a save from slipping between version and copy."""
    row = yield from lock(request)
    if row is None or row["state"] not in states.LIVE or barred(row, request.fence):
        return None
    found = yield STATE, key(request)
    documents = {name: found[0][name] for name in DOCUMENTS} if found else {}
    values: Row = {
        **own_key(row),
        "seq": row["next_seq"],
        "label": request.label,
        "data": request.data,
        **{name: row[name] for name in ENTRIES},
        **documents,
        "phase": row["phase"],
        "step": row["step"],
        "version": row["version"],
        "created_at": row["now"],
    }
    yield insert(t.checkpoints, tuple(values)), bound(values)
    yield from set_row(
        row,
        {
            "next_seq": row["next_seq"] + 1, "checkpoint_version": row["version"],
            "checkpoint_entry": row["next_entry"],
            **changed_now(row), **active_now(row),
        },
    )  # fmt: skip
    yield from _drop_superseded(request, row, documents)
    return values


_SEQS = Statement(sa.select(t.checkpoints.c.seq).where(of_key(t.checkpoints)).order_by(t.checkpoints.c.seq))
_TIMES = Statement(
    sa.select(t.checkpoints.c.seq, t.checkpoints.c.created_at)
    .where(of_key(t.checkpoints))
    .order_by(t.checkpoints.c.seq)
)
# A policy that is new to an old session may give up thousands: the write it happens in must end in time all the same.
_AT_ONCE = 1024


@cache
def _of_seqs(count: int) -> tuple[Statement, Statement]:
    """Read what checkpoints are made of by their seqs, and remove them."""
    seqs: list[Any] = [p(f"seq_{i}", sa.BigInteger()) for i in range(count)]
    these = sa.and_(of_key(t.checkpoints), t.checkpoints.c.seq.in_(seqs))
    columns = [t.checkpoints.c[name] for name in (*ENTRIES, "context_pieces", "plan_pieces")]
    return Statement(sa.select(*columns).where(these)), Statement(sa.delete(t.checkpoints).where(these))


def _drop_superseded(request: r.MakeCheckpoint, row: Row, documents: Row) -> Recipe:
    """Remove the checkpoints that the policy does not keep; the session's lock keeps others from making some."""
    policy = request.policies.for_kind(row["kind"])
    if policy.checkpoints_keep_last is None:
        return
    # SQLite walks past the documents of a row to come to its time; the seqs alone stand in the index.
    found = yield _SEQS if policy.checkpoints_keep_every is None else _TIMES, key(request)
    gone = policy.superseded([(kept["seq"], kept.get("created_at", row["now"])) for kept in found])[:_AT_ONCE]
    if not gone:
        return
    gone = padded(gone)
    values = key(request) | {f"p_seq_{i}": seq for i, seq in enumerate(gone)}
    read, delete = _of_seqs(len(gone))
    dropped = yield read, values
    yield delete, values
    # Mostly the saved state goes on from them and has all that they had.
    runs = runs_of(row)
    names = {name for column in _PIECES for name in names_in(documents.get(column))}
    if not all(within(runs_of(kept), runs) and names.issuperset(_names(kept)) for kept in dropped):
        yield from collect(row)


_PIECES = ("context_pieces", "plan_pieces")


def _names(holder: Row) -> list[str]:
    return [name for column in _PIECES for name in names_in(holder[column])]


def list_checkpoints(request: r.ListCheckpoints) -> Recipe:
    """Read the checkpoints without their documents."""
    if not (yield GET, key(request)):
        return []
    return (yield _CHECKPOINTS, key(request))


def get_checkpoint(request: r.GetCheckpoint) -> Recipe:
    """Read one checkpoint with its documents."""
    if not (yield GET, key(request)):
        return None
    return (yield from assembled(CHECKPOINT, key(request) | {"p_seq": request.seq}))


def restore_checkpoint(request: r.RestoreCheckpoint) -> Recipe:
    """Copy a checkpoint back."""
    row = yield from lock(request)
    if row is None or row["state"] != "active" or barred(row, request.fence):
        return None
    found = yield CHECKPOINT, key(request) | {"p_seq": request.seq}
    if not found:
        return 0
    version = row["version"] + 1
    saved = found[0]
    entries = dict.fromkeys(ENTRIES[1:])
    if saved["entries_from"] is not None:
        entries = columns_of(runs_of(saved), row["next_entry"])
    yield from set_row(
        row,
        {
            "version": version, "saved_at": row["now"], "phase": saved["phase"], "step": saved["step"],
            "ghost_at": None, **entries, **changed_now(row), **active_now(row),
        },
    )  # fmt: skip
    documents = {name: saved[name] for name in DOCUMENTS}
    if (yield setting(t.session_states, own_key(row), documents)) == 0:
        yield insert(t.session_states, ("tenant", "session_id", *documents)), bound(own_key(row) | documents)
    yield from collect(row)
    return version
