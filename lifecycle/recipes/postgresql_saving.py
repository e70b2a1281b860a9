"""Saving a state on PostgreSQL: one statement, however long the conversation is.

A save of a whole conversation goes by what is stored: by the digests the statement sees where the two part, close to the
end at most, and stores what is behind that. What it sees is of the snapshot in which it began; a session's row that was
changed meanwhile says more entries than are found there. Then, and where they part early, the save is refused, to be
made as one that changes any part.
"""

from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from lifecycle.entries import DIGEST_CHARS, MOST_RUNS
from lifecycle.models import tables as t
from lifecycle.models.types import now
from lifecycle.operations import requests as r
from lifecycle.recipes import postgresql_chunks as chunks
from lifecycle.recipes.portable.base import bound, is_in, key, of_key, p
from lifecycle.recipes.postgresql import ACTIVE_NOW, CHANGED_NOW, SHOWN, allowed, fence
from lifecycle.recipes.postgresql_chunks import ONE
from lifecycle.recipes.postgresql_loading import in_order, saved
from lifecycle.recipes.statement import Single, Statement

S = t.sessions.c
E = t.entries.c
_NONE: Any = sa.literal_column("''", sa.Text())
_CHARS: Any = sa.literal_column(str(DIGEST_CHARS), sa.BigInteger())
_ZERO: Any = sa.literal_column("0", sa.BigInteger())
_EMPTY: Any = sa.cast(sa.literal_column("'[]'"), JSONB)
_RUNS: Any = sa.literal_column(str(MOST_RUNS))
# So many entries at the end may fall out of a conversation in one statement.
_FEW: Any = sa.literal_column("16", sa.BigInteger())
_COUNT: Any = sa.cast(p("entries"), sa.BigInteger())


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
    whole = in_order(locked, E.digest, _NONE).lateral("whole")
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


def _version(request: r.SaveState, rows: list[dict[str, Any]]) -> Any:
    if not rows:
        return None
    saved(request)
    return rows[0]["version"]


SINGLES: dict[type[r.Request], Single] = {
    r.SaveState: Single(_save_shape, _bind_save, _version),
}
