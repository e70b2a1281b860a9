"""Loading a state on PostgreSQL: one statement, however long the conversation is.

Most states are plain: documents in one piece, and a conversation that only grew, or none. The statement that can put any
state together has a plan of five times as many nodes, each of which costs time though it does not run. So what this
process saw to be plain is read with a statement that can read nothing else, and says so where it is not plain any more.
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
_NO_CONVERSATION: Final = "no conversation"
_PLAIN: Final = "plain"
_NONE: Any = sa.literal_column("''", sa.Text())
_COMMA: Any = sa.literal_column("','", sa.Text())
_EMPTY: Any = sa.cast(sa.literal_column("'[]'"), JSONB)
# Of so many sessions it is remembered. Wherever this is wrong costs a second round trip, and nothing else.
_MOST_KNOWN: Final = 10_000
_shapes: dict[tuple[str, str], str] = {}


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


def in_order(holder: Any, column: Any, between: Any) -> Any:
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
    return chosen.select_from(spans.join(found, sa.true())).correlate(holder)


def _conversation(holder: Any, shape: str | None) -> Any:
    """The text of a conversation: NULL for none, and empty where an entry is missing."""
    if shape == _NO_CONVERSATION:
        return sa.cast(sa.null(), sa.Text())
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
    if shape == _PLAIN:
        return sa.case(none, else_=one)
    parts = in_order(holder, E.content, _COMMA).subquery("parts")
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
def load_statement(any_state: bool, shape: str | None = None) -> Statement:
    """Read the saved state with the session's phase and step, and the shape it has.

    A statement for states of one `shape` is `enough` where this is one of them.
    """
    documents = t.session_states
    D = documents.c  # noqa: N806 - as for the other tables
    beside = sa.outerjoin(t.sessions, documents, sa.and_(D.tenant == S.tenant, D.session_id == S.session_id))
    plain = sa.and_(S.entries_before.is_(None), *(D[f"{name}_pieces"].is_(None) for name in _DOCUMENTS))
    silent = sa.and_(plain, S.entries_from.is_(None))
    shapes = {_NO_CONVERSATION: silent, _PLAIN: plain}
    quoted = {name: sa.literal_column(f"'{name}'", sa.Text()) for name in shapes}
    chosen = (
        sa.select(
            S.session_id,
            _conversation(t.sessions, shape).label("conversation"),
            *(_document(documents, name) if shape is None else D[name] for name in _DOCUMENTS),
            S.phase,
            S.step,
            S.version,
            S.saved_at,
            sa.case(*((shapes[name], quoted[name]) for name in shapes)).label("shape")
            if shape is None
            else shapes[shape].label("enough"),
        )
        .select_from(beside)
        .where(of_key(t.sessions), S.saved_at.is_not(None), SHOWN)
    )
    return Statement(chosen if any_state else chosen.where(is_in(S.state, states.LIVE)))


def _lighter(request: r.LoadState) -> Statement | None:
    shape = _shapes.get((request.tenant, request.session_id))
    return None if shape is None else load_statement(request.any_state, shape)


def _loaded(request: r.LoadState, rows: list[dict[str, Any]]) -> Any:
    """The row, or None; the shape that it has is remembered."""
    row = first(request, rows)
    if row is None:
        return None
    session = (request.tenant, request.session_id)
    enough = row.pop("enough", None)
    if enough is None:
        shape = row.pop("shape")
        if shape is None:
            _shapes.pop(session, None)
        else:
            if len(_shapes) >= _MOST_KNOWN:
                _shapes.clear()
            _shapes[session] = shape
        return row
    if enough:
        return row
    _shapes.pop(session, None)
    return NOT_ENOUGH


def saved(request: r.SaveState) -> None:
    """A state was saved by this process: it may have another shape now."""
    session = (request.tenant, request.session_id)
    if session not in _shapes:
        return
    if any(document.pieces is not None for document in request.documents.values()):
        _shapes.pop(session, None)
    elif request.append is not None or request.conversation is not None:
        _shapes[session] = _PLAIN


SINGLES: dict[type[r.Request], Single] = {
    r.LoadState: Single(lambda request: load_statement(request.any_state), key, _loaded, _lighter),
}
