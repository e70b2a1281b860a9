"""Loading a state on PostgreSQL: one statement, however long the conversation is.

Most states are plain: a conversation that only grew, and documents in one piece. The statement that can put any state
together has a plan of five times as many nodes, each of which costs time though none of them runs. So what this process
saw to be plain is read with a statement that can read nothing else, and says so where it is not plain any more.
"""

from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from lifecycle import states
from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.recipes.keyed import first
from lifecycle.recipes.portable.base import is_in, key, of_key, p
from lifecycle.recipes.postgresql import SHOWN
from lifecycle.recipes.postgresql_chunks import ONE
from lifecycle.recipes.statement import NOT_ENOUGH, Single, Statement

S = t.sessions.c
E = t.entries.c
_DOCUMENTS: Final = ("context", "plan")
_NONE: Any = sa.literal_column("''", sa.Text())
_COMMA: Any = sa.literal_column("','", sa.Text())
_EMPTY: Any = sa.cast(sa.literal_column("'[]'"), JSONB)
# Of so many sessions it is remembered. Wherever this is wrong costs a second round trip, and nothing else.
_MOST_KNOWN: Final = 10_000
_plain: dict[tuple[str, str], None] = {}


def _runs(holder: Any) -> Any:
    """The runs of a conversation as rows: the first and the last number of each, and its place."""
    last = sa.func.jsonb_build_array(sa.func.jsonb_build_array(holder.c.entries_from, holder.c.next_entry - ONE))
    before = sa.func.coalesce(sa.cast(holder.c.entries_before, JSONB), _EMPTY)
    runs = sa.func.jsonb_array_elements(before.op("||")(last)).table_valued(
        sa.column("run", JSONB), with_ordinality="place", name="runs"
    ).render_derived()  # fmt: skip

    def end(which: str) -> Any:
        return sa.cast(runs.c.run.op("->>")(sa.literal_column(which)), sa.BigInteger())

    return sa.select(runs.c.place, end("0").label("first"), end("1").label("last")).correlate(holder).subquery("spans")


def in_order(holder: Any, column: Any, between: Any) -> tuple[Any, Any]:
    """The texts of a conversation's entries as one, and whether all of them are there."""
    spans = _runs(holder)
    found = (
        sa.select(
            sa.func.count().label("n"), sa.func.string_agg(column, between).aggregate_order_by(E.number).label("text")
        )
        .where(of_key(t.entries), E.number >= spans.c.first, E.number <= spans.c.last)
        .correlate(spans)
        .lateral("found")
    )
    text = sa.func.string_agg(found.c.text, between).aggregate_order_by(spans.c.place)
    length = sa.func.greatest(spans.c.last - spans.c.first + ONE, sa.literal_column("0", sa.BigInteger()))
    chosen = sa.select(
        sa.func.coalesce(text, _NONE).label("text"), (sa.func.sum(found.c.n) == sa.func.sum(length)).label("complete")
    )
    joined = chosen.select_from(spans.join(found, sa.true())).correlate(holder)
    return joined, found


def _conversation(holder: Any, *, plain: bool) -> Any:
    """The text of a conversation: NULL for none, and empty where an entry is missing."""
    simple = sa.select(
        sa.case(
            (
                sa.func.count() == holder.c.next_entry - holder.c.entries_from,
                sa.func.concat(
                    sa.literal_column("'['"),
                    sa.func.string_agg(E.content, _COMMA).aggregate_order_by(E.number),
                    sa.literal_column("']'"),
                ),
            ),
            else_=_NONE,
        )
    ).where(of_key(t.entries), E.number >= holder.c.entries_from, E.number < holder.c.next_entry)
    none, one = (holder.c.entries_from.is_(None), sa.null()), simple.correlate(holder).scalar_subquery()
    if plain:
        return sa.case(none, else_=one)
    whole, _ = in_order(holder, E.content, _COMMA)
    parts = whole.subquery("parts")
    several = sa.select(
        sa.case(
            (parts.c.complete, sa.func.concat(sa.literal_column("'['"), parts.c.text, sa.literal_column("']'"))),
            else_=_NONE,
        )
    )
    return sa.case(none, (holder.c.entries_before.is_(None), one), else_=several.correlate(holder).scalar_subquery())


def _document(holder: Any, name: str) -> Any:
    """The text of a document, put together where it is in pieces; empty where one is missing."""
    listed = sa.func.jsonb_array_elements_text(sa.cast(holder.c[f"{name}_pieces"], JSONB)).table_valued(
        sa.column("piece", sa.Text()), with_ordinality="place", name=f"{name}_parts"
    ).render_derived()  # fmt: skip
    V = t.values.alias(f"{name}_values").c  # noqa: N806 - as for the other tables
    kept = listed.c.place % sa.literal_column("2") == sa.literal_column("0")
    of_value = sa.and_(kept, V.tenant == p("tenant"), V.session_id == p("session_id"), V.name == listed.c.piece)
    text = sa.func.string_agg(sa.case((kept, V.content), else_=listed.c.piece), _NONE)
    whole = sa.select(
        sa.case(
            (
                sa.func.count(V.content) == sa.func.count() // sa.literal_column("2", sa.BigInteger()),
                text.aggregate_order_by(listed.c.place),
            ),
            else_=_NONE,
        )
    ).select_from(sa.outerjoin(listed, V.content.table, of_value))
    return sa.case(
        (holder.c[f"{name}_pieces"].is_(None), holder.c[name]), else_=whole.correlate(holder).scalar_subquery()
    ).label(name)


@cache
def load_statement(any_state: bool, plain: bool) -> Statement:
    """Read the saved state with the session's phase and step; where it is not `plain`, such a statement says `enough` is not."""
    documents = t.session_states
    D = documents.c  # noqa: N806 - as for the other tables
    beside = sa.outerjoin(t.sessions, documents, sa.and_(D.tenant == S.tenant, D.session_id == S.session_id))
    is_plain = sa.and_(S.entries_before.is_(None), *(D[f"{name}_pieces"].is_(None) for name in _DOCUMENTS))
    chosen = (
        sa.select(
            S.session_id,
            _conversation(t.sessions, plain=plain).label("conversation"),
            *(D[name] if plain else _document(documents, name) for name in _DOCUMENTS),
            S.phase,
            S.step,
            S.version,
            S.saved_at,
            is_plain.label("enough" if plain else "plain"),
        )
        .select_from(beside)
        .where(of_key(t.sessions), S.saved_at.is_not(None), SHOWN)
    )
    return Statement(chosen if any_state else chosen.where(is_in(S.state, states.LIVE)))


def _plain_statement(request: r.LoadState) -> Statement | None:
    known = (request.tenant, request.session_id) in _plain
    return load_statement(request.any_state, True) if known else None


def _loaded(request: r.LoadState, rows: list[dict[str, Any]]) -> Any:
    """The row, or None; what it says about itself is remembered."""
    row = first(request, rows)
    if row is None:
        return None
    session = (request.tenant, request.session_id)
    enough = row.pop("enough", None)
    if enough:
        return row
    if enough is None and row.pop("plain"):
        if len(_plain) >= _MOST_KNOWN:
            _plain.clear()
        _plain[session] = None
    else:
        _plain.pop(session, None)
    return row if enough is None else NOT_ENOUGH


SINGLES: dict[type[r.Request], Single] = {
    r.LoadState: Single(lambda request: load_statement(request.any_state, False), key, _loaded, _plain_statement),
}
