"""Removing entries and pieces of a session that neither its saved state nor a checkpoint of it needs.

In a transaction that has the session's row locked: whoever comes to need something locks it first.
"""

import sqlalchemy as sa

from lifecycle.entries import outside, runs_of
from lifecycle.models import tables as t
from lifecycle.pieces import names_in
from lifecycle.recipes.portable.base import Recipe, Row, bound, of_key, own_key, p
from lifecycle.recipes.statement import Many, Statement

E, C, D = t.entries.c, t.checkpoints.c, t.session_states.c
_NUMBERS = Statement(sa.select(E.number).where(of_key(t.entries)).order_by(E.number))
_NAMES = Statement(sa.select(t.values.c.name).where(of_key(t.values)))
_STATES = Statement(sa.select(D.context_pieces, D.plan_pieces).where(of_key(t.session_states)))
_RUNS = Statement(sa.select(C.next_entry, C.entries_from, C.entries_before).where(of_key(t.checkpoints)))
_PIECES = Statement(sa.select(C.context_pieces, C.plan_pieces).where(of_key(t.checkpoints)))
_DROP_ENTRIES = Statement(
    sa.delete(t.entries).where(
        of_key(t.entries), E.number >= p("first", E.number.type), E.number <= p("last", E.number.type)
    )
)
DELETE_VALUE = Statement(sa.delete(t.values).where(of_key(t.values), t.values.c.name == p("name")))


def collect(row: Row, *, pieces: bool = True) -> Recipe:
    """Remove what is not needed of a session whose row is locked; its columns are those that it has now."""
    of = bound(own_key(row))
    checkpoints = yield _RUNS, of
    numbers = yield _NUMBERS, of
    kept = [run for holder in (row, *checkpoints) for run in runs_of(holder)]
    gone = outside([entry["number"] for entry in numbers], kept)
    if gone:
        yield Many(_DROP_ENTRIES, [{**of, "p_first": first, "p_last": last} for first, last in gone])
    if not pieces:
        return
    names = yield _NAMES, of
    if names:
        states = yield _STATES, of
        checkpoints = yield _PIECES, of
        needed = {
            name
            for holder in (*states, *checkpoints)
            for pieces in (holder["context_pieces"], holder["plan_pieces"])
            for name in names_in(pieces)
        }
        unneeded = [value["name"] for value in names if value["name"] not in needed]
        if unneeded:
            yield Many(DELETE_VALUE, [{**of, "p_name": name} for name in unneeded])
