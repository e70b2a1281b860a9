"""Saving and loading a state on PostgreSQL: one statement each, however long the conversation is.

A save of a whole conversation goes by what is stored: by the digests the statement sees where the two part, close to the
end at most, and stores what is behind that. What it sees is of the snapshot in which it began; a session's row that was
changed meanwhile says more entries than are found there. Then, and where they part early, the save is refused, to be
made as one that changes any part.
"""

from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from lifecycle import states
from lifecycle.entries import DIGEST_CHARS, MOST_RUNS
from lifecycle.models import tables as t
from lifecycle.models.types import now
from lifecycle.operations import requests as r
from lifecycle.recipes import postgresql_chunks as chunks
from lifecycle.recipes.keyed import first
from lifecycle.recipes.portable.base import bound, is_in, key, of_key, p
from lifecycle.recipes.postgresql import ACTIVE_NOW, CHANGED_NOW, SHOWN, allowed, fence
from lifecycle.recipes.postgresql_chunks import ONE
from lifecycle.recipes.statement import Single, Statement

S = t.sessions.c
E = t.entries.c
_NONE: Any = sa.literal_column("''", sa.Text())
_COMMA: Any = sa.literal_column("','", sa.Text())
_CHARS: Any = sa.literal_column(str(DIGEST_CHARS), sa.BigInteger())
_ZERO: Any = sa.literal_column("0", sa.BigInteger())
_EMPTY: Any = sa.cast(sa.literal_column("'[]'"), JSONB)
_RUNS: Any = sa.literal_column(str(MOST_RUNS))
# So many entries at the end may fall out of a conversation in one statement.
_FEW: Any = sa.literal_column("16", sa.BigInteger())
_COUNT: Any = sa.cast(p("entries"), sa.BigInteger())


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


def _in_order(holder: Any, column: Any, between: Any) -> tuple[Any, Any]:
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


def _conversation(holder: Any) -> Any:
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
    whole, _ = _in_order(holder, E.content, _COMMA)
    parts = whole.subquery("parts")
    several = sa.select(
        sa.case(
            (parts.c.complete, sa.func.concat(sa.literal_column("'['"), parts.c.text, sa.literal_column("']'"))),
            else_=_NONE,
        )
    )
    return sa.case(
        (holder.c.entries_from.is_(None), sa.null()),
        (holder.c.entries_before.is_(None), simple.correlate(holder).scalar_subquery()),
        else_=several.correlate(holder).scalar_subquery(),
    )


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
def load_statement(any_state: bool) -> Statement:
    """Read the saved state with the session's phase and step."""
    documents = t.session_states
    beside = sa.outerjoin(
        t.sessions, documents, sa.and_(documents.c.tenant == S.tenant, documents.c.session_id == S.session_id)
    )
    chosen = (
        sa.select(
            S.session_id,
            _conversation(t.sessions).label("conversation"),
            _document(documents, "context"),
            _document(documents, "plan"),
            S.phase,
            S.step,
            S.version,
            S.saved_at,
        )
        .select_from(beside)
        .where(of_key(t.sessions), S.saved_at.is_not(None), SHOWN)
    )
    return Statement(chosen if any_state else chosen.where(is_in(S.state, states.LIVE)))


@cache
def save_statement(
    documents: tuple[str, ...],
    chunked: bool,
    conversation: str | None,
    fields: tuple[str, ...],
    expected: bool,
    token: bool,
    fenced: bool,
) -> Statement:
    """Bump the version of an active session that nobody else holds, and write what is passed.

    `conversation` is how entries come: "one" or "several" behind those that are there, or "whole".
    """
    chosen = sa.update(t.sessions).where(of_key(t.sessions), SHOWN, is_in(S.state, ("active",)), allowed(fenced))
    if expected:
        chosen = chosen.where(S.version == p("expected"))
    returned: list[Any] = [S.tenant, S.session_id, S.version, S.checkpoint_version]
    counted: dict[str, Any] = {}
    begin: Any = sa.func.coalesce(S.entries_from, S.next_entry)
    if conversation == "whole":
        known = _known()
        chosen = chosen.where(
            S.tenant == known.c.tenant,
            S.session_id == known.c.session_id,
            known.c.count - known.c.kept <= known.c.tail,
            sa.func.jsonb_array_length(known.c.before) < _RUNS,
        )
        counted = _rearranged(known)
        returned += [known.c.next_entry.label("first_entry"), known.c.count, known.c.kept, S.checkpoint_entry]
    elif conversation is not None:
        count = ONE if conversation == "one" else _COUNT
        counted = {"next_entry": S.next_entry + count, "entries_from": begin}
        returned.append((S.next_entry - count).label("first_entry"))
    moved = (
        chosen.values(
            {
                "version": S.version + ONE,
                "saved_at": now(),
                "ghost_at": sa.null(),
                **{name: p(name, S[name].type) for name in fields},
                **counted,
                **CHANGED_NOW,
                **ACTIVE_NOW,
            }
        )
        .returning(*returned)
        .cte("moved")
    )
    parts = []
    if documents:
        parts.append(chunks.states(moved, documents, new=False))
        parts += chunks.pieces(moved, documents, chunked=chunked, new=False)
    if conversation is not None:
        behind = moved.c.kept if conversation == "whole" else None
        if behind is not None:
            parts.append(_dropped(moved))
        parts.append(chunks.entries(moved, moved.c.first_entry, one=conversation == "one", behind=behind))
    if token:
        kept = sa.select(
            moved.c.tenant, moved.c.session_id, p("token", sa.Text()), p("digest", sa.Text()), moved.c.version, now()
        )
        columns = ["tenant", "session_id", "token", "digest", "version", "created_at"]
        parts.append(sa.insert(t.tokens).from_select(columns, kept).cte("kept"))
    return Statement(sa.select(moved.c.version).add_cte(*parts))


def _known() -> Any:
    """The session's row, locked, and what of its conversation the one that is given begins with.

    `kept` is the number of those entries, NULL where more fall out than one statement is to put right; `tail` is how
    many stand from `entries_from` on.
    """
    locked = (
        sa.select(S.tenant, S.session_id, S.next_entry, S.entries_before, S.entries_from)
        .where(of_key(t.sessions))
        .with_for_update()
        .cte("locked")
    )
    L = locked.c  # noqa: N806 - as for the tables
    joined, _ = _in_order(locked, E.digest, _NONE)
    whole = joined.lateral("whole")
    none = L.entries_from.is_(None)
    read = (
        sa.select(
            L.tenant,
            L.session_id,
            L.next_entry,
            sa.func.coalesce(L.entries_from, L.next_entry).label("entries_from"),
            sa.func.coalesce(sa.cast(L.entries_before, JSONB), _EMPTY).label("before"),
            sa.case((none, _NONE), else_=whole.c.text).label("digests"),
        )
        .select_from(locked.join(whole, sa.true()))
        # Where a run was not found whole, the row is newer than what the statement sees.
        .where(sa.or_(none, whole.c.complete))
        .cte("read")
    )
    R = read.c  # noqa: N806 - as for the tables
    count = sa.cast(sa.func.length(R.digests), sa.BigInteger()) // _CHARS
    tries = (
        sa.func.generate_series(sa.func.greatest(count - _FEW, _ZERO), count).table_valued("k").render_derived("tries")
    )
    chars = sa.cast(tries.c.k * _CHARS, sa.Integer())
    kept = (
        sa.select(sa.func.max(tries.c.k))
        .where(sa.func.left(R.digests, chars) == sa.func.left(p("digests", sa.Text()), chars))
        .correlate(read)
        .scalar_subquery()
    )
    tail = R.next_entry - R.entries_from
    return sa.select(
        R.tenant, R.session_id, R.next_entry, R.entries_from, R.before, count.label("count"), tail.label("tail"),
        kept.label("kept"),
    ).cte("known")  # fmt: skip


def _rearranged(known: Any) -> dict[str, Any]:
    """The session's columns behind what was kept of its conversation: what falls out leaves a gap in the numbers."""
    K = known.c  # noqa: N806 - as for the tables
    last = K.entries_from + K.tail - (K.count - K.kept) - ONE
    run = sa.func.jsonb_build_array(sa.func.jsonb_build_array(K.entries_from, last))
    longer = sa.case((last >= K.entries_from, K.before.op("||")(run)), else_=K.before)
    return {
        "next_entry": K.next_entry + _COUNT - K.kept,
        "entries_from": sa.case((K.kept == K.count, K.entries_from), else_=K.next_entry),
        "entries_before": sa.case(
            (K.kept == K.count, S.entries_before), else_=sa.cast(sa.func.nullif(longer, _EMPTY), sa.Text())
        ),
    }


def _dropped(moved: Any) -> Any:
    """Remove what fell out, as far as no checkpoint has it."""
    return (
        sa.delete(t.entries)
        .where(
            E.tenant == moved.c.tenant,
            E.session_id == moved.c.session_id,
            moved.c.kept < moved.c.count,
            E.number >= moved.c.first_entry - (moved.c.count - moved.c.kept),
            E.number >= moved.c.checkpoint_entry,
            E.number < moved.c.first_entry,
        )
        .cte("gone_entries")
    )


def _way(request: r.SaveState) -> str | None:
    if request.conversation is not None:
        return "whole"
    if request.append is None:
        return None
    return "one" if len(request.append.texts) == 1 else "several"


def _save_shape(request: r.SaveState) -> Statement:
    return save_statement(
        *chunks.documents_of(request),
        _way(request),
        tuple(request.fields),
        request.expected is not None,
        request.token is not None,
        request.fence is not None,
    )


def _bind_save(request: r.SaveState) -> dict[str, Any]:
    values = key(request) | bound(request.fields) | chunks.bind_documents(request) | fence(request)
    values["p_expected"] = request.expected
    added = request.append if request.conversation is None else request.conversation
    if added is not None:
        values |= chunks.bind_entries(added, one=_way(request) == "one")
        values["p_entries"] = len(added.texts)
        if request.conversation is not None:
            values["p_digests"] = "".join(added.digests)
    if request.token is not None:
        values |= {"p_token": request.token, "p_digest": request.digest}
    return values


def _version(_request: Any, rows: list[dict[str, Any]]) -> Any:
    return rows[0]["version"] if rows else None


SINGLES: dict[type[r.Request], Single] = {
    r.SaveState: Single(_save_shape, _bind_save, _version),
    r.LoadState: Single(lambda request: load_statement(request.any_state), key, first),
}
