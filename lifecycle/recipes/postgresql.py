"""How PostgreSQL meets the hot requests: one statement, one round trip, its own commit.

The parts of a data-modifying CTE share one snapshot, so the session's row is locked or updated first, and no
part reads a row that may be newer than the snapshot. What would have to (removing children, copying the state)
is left to the portable recipes, in a transaction.
"""

from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as pg_insert

from lifecycle import states
from lifecycle.models import tables as t
from lifecycle.models.types import Timestamp, now, transaction_id
from lifecycle.operations import requests as r
from lifecycle.recipes import postgresql_chunks as chunks
from lifecycle.recipes.keyed import FIELDS, READS, first
from lifecycle.recipes.portable.base import bound, is_in, key, of_key, p
from lifecycle.recipes.postgresql_chunks import ONE, TEXTS
from lifecycle.recipes.statement import Single, Statement

S = t.sessions.c
_TIME = Timestamp()
# Literals stand in the text of a statement: as parameters they would be sent each time.
_MINUTE = sa.func.date_trunc(sa.literal_column("'minute'"), now(), type_=_TIME)


def after(seconds: Any) -> Any:
    """So many seconds from now; NULL for never."""
    return sa.type_coerce(now() + seconds * sa.literal_column("interval '1 second'"), _TIME)


def _expiry(idle: Any, max_age_at: Any) -> Any:
    """`deadlines.expiry` in SQL: LEAST passes over NULLs, as never does not bound."""
    grid = sa.cast(idle, sa.Double()).op("/", precedence=8)(sa.literal_column("20"))
    epoch: Any = sa.cast(sa.extract("epoch", now()), sa.Double())
    idle_at = sa.func.to_timestamp(sa.func.ceil((epoch + idle) / grid) * grid)
    return sa.func.least(max_age_at, idle_at, type_=_TIME)


def _idle() -> Any:
    return sa.case((S.state == sa.literal_column("'active'"), S.idle_active), else_=S.idle_suspended)


def _pushed() -> Any:
    """The deadline after activity; it never moves down."""
    return sa.func.greatest(S.expires_at, _expiry(_idle(), S.max_age_at), type_=_TIME)


ACTIVE_NOW = {"last_active_at": sa.func.greatest(S.last_active_at, now(), type_=_TIME), "expires_at": _pushed()}
CHANGED_NOW = {"updated_at": now(), "listed_at": _MINUTE}
FREE = sa.or_(S.lease_holder.is_(None), S.lease_expires_at.is_(None), S.lease_expires_at <= now())
# IS NOT DISTINCT FROM keeps the index on lease_holder out of it: a holder has thousands of sessions, which the planner,
# whose statistics are older than the holder, takes for one.
HELD_BY = S.lease_holder.is_not_distinct_from(p("holder", sa.Text()))
FENCED = sa.and_(HELD_BY, S.lease_epoch == p("epoch", sa.BigInteger()))
SHOWN = S.deleted_at.is_(None)


def allowed(fenced: bool) -> Any:
    """That the session is the write's: nobody holds it, or the holder of the write's lease does."""
    return FENCED if fenced else FREE


def fence(request: Any) -> dict[str, Any]:
    """The parameters of `allowed`."""
    return {} if request.fence is None else {"p_holder": request.fence[0], "p_epoch": request.fence[1]}


def _seconds_for(kind: Any, name: str) -> Any:
    """A kind's seconds out of a map from kind to seconds; a kind that is missing there has the default."""
    known = sa.cast(p(f"{name}_map", sa.Text()), sa.dialects.postgresql.JSONB)
    chosen = sa.cast(known.op("->>")(kind), sa.BigInteger())
    return sa.case((sa.func.jsonb_exists(known, kind), chosen), else_=sa.cast(p(f"{name}_default"), sa.BigInteger()))


def audit_of(source: Any, trigger: Any, before: Any, after: Any) -> Any:
    """The audit row that a changed session's row gives."""
    columns = ["tenant", "session_id", "seq", "trigger_name", "from_state", "to_state", "reason", "actor", "version",
               "created_at", "txid"]  # fmt: skip
    chosen = sa.select(
        source.c.tenant, source.c.session_id, source.c.next_seq - ONE, trigger, before, after, p("reason", sa.Text()),
        p("actor", sa.Text()), source.c.version, now(), transaction_id(),
    )  # fmt: skip
    return sa.insert(t.transitions).from_select(columns, chosen).cte("audit")


_GIVEN = ("kind", "user_id", "agent_id", "parent_id", "title", "title_folded", "metadata", "config", "phase", "protected",
          "idle_active", "idle_suspended", "idle_override", "available_at", "runs")  # fmt: skip


@cache
def create_statement(
    documents: tuple[str, ...], chunked: bool, entries: int | None, more: tuple[str, ...]
) -> Statement:
    """Insert the session, its audit row and its state, unless the id is taken; `entries` are none, one, or several."""
    max_age_at = after(sa.cast(p("max_age"), sa.BigInteger()))
    idle = sa.cast(p("idle"), sa.BigInteger())
    values: dict[str, Any] = {name: p(name, S[name].type) for name in (*_GIVEN, *more, "tenant", "session_id")}
    values |= {
        "state": sa.literal_column(f"'{states.INITIAL}'"),
        "version": sa.literal_column("1"),
        "next_seq": sa.literal_column("2"),
        "created_at": now(),
        "updated_at": now(),
        "listed_at": _MINUTE,
        "last_active_at": now(),
        "ghost_at": after(sa.cast(p("ghosts"), sa.BigInteger())),
        "max_age_at": max_age_at,
        "expires_at": _expiry(idle, max_age_at),
    }
    if documents or entries is not None:
        values["saved_at"] = now()
    if entries is not None:
        values |= {"entries_from": ONE, "next_entry": ONE + sa.cast(p("entries"), sa.BigInteger())}
    made = (
        pg_insert(t.sessions)
        .values(values)
        .on_conflict_do_nothing(index_elements=["tenant", "session_id"])
        .returning(*FIELDS, S.next_seq)
        .cte("made")
    )
    parts = [audit_of(made, sa.literal_column("'create'"), sa.null(), made.c.state)]
    if documents:
        parts.append(chunks.states(made, documents, new=True))
        parts += chunks.pieces(made, documents, chunked=chunked, new=True)
    if entries:
        parts.append(chunks.entries(made, ONE, one=entries == 1))
    return Statement(sa.select(*[made.c[column.name] for column in FIELDS]).add_cte(*parts))


def _bind_create(request: r.CreateSession) -> dict[str, Any]:
    given = {"max_age": request.max_age, "idle": request.idle, "ghosts": request.ghosts, "actor": request.actor}
    values = key(request) | bound({**request.values, **given, "reason": None}) | chunks.bind_documents(request)
    if request.conversation is not None:
        count = len(request.conversation.texts)
        values |= {"p_entries": count, **chunks.bind_entries(request.conversation, one=count == 1)}
    return values


def moved_values(trigger: str, *, fenced: bool = False) -> dict[str, Any]:
    """What a transition writes into the session's row."""
    wanted = states.transition(trigger)
    target: Any = sa.literal_column(f"'{wanted.target}'")
    values: dict[str, Any] = {
        "state": target,
        "reason": p("reason", sa.Text()),
        "version": S.version + ONE,
        "next_seq": S.next_seq + ONE,
        **CHANGED_NOW,
        "last_active_at": ACTIVE_NOW["last_active_at"],
    }
    if not fenced or wanted.target in states.TERMINAL:
        values |= {"lease_holder": sa.null(), "lease_expires_at": sa.null()}
    if not fenced:
        # A later write of the holder's is refused.
        taken = sa.case((S.lease_holder.is_not(None), ONE), else_=sa.literal_column("0"))
        values["lease_epoch"] = S.lease_epoch + taken
    if wanted.target in states.TERMINAL:
        values |= {
            "ended_at": now(),
            "prune_at": after(_seconds_for(S.kind, "retention")),
            "expires_at": sa.null(),
            "ghost_at": sa.null(),
            "available_at": sa.null(),
        }
    else:
        reopened = any(source in states.TERMINAL for source in wanted.sources)
        max_age_at = after(_seconds_for(S.kind, "max_age")) if reopened else S.max_age_at
        idle = S.idle_active if wanted.target == "active" else S.idle_suspended
        values |= {"ended_at": sa.null(), "prune_at": sa.null(), "expires_at": _expiry(idle, max_age_at)}
        if wanted.target == "active":
            # What runners work on waits for one again; an idle chat does not.
            values |= {
                "available_at": sa.case(
                    (S.runs, now()),
                    else_=S.available_at,
                ),
                "attempts": sa.literal_column("0"),
                "rescues": sa.literal_column("0"),
            }
        else:
            values["available_at"] = sa.null()
        if reopened:
            values["max_age_at"] = max_age_at
    return values


@cache
def move_statement(trigger: str, expected: bool, fenced: bool) -> Statement:
    """Lock, compare the state, set the new one, write the audit row."""
    wanted = states.transition(trigger)
    locked = (
        sa.select(S.tenant, S.session_id, S.state.label("from_state"))
        .where(of_key(t.sessions), SHOWN)
        .with_for_update()
        .cte("locked")
    )
    chosen = sa.update(t.sessions).where(
        S.tenant == locked.c.tenant,
        S.session_id == locked.c.session_id,
        is_in(locked.c.from_state, wanted.sources),
    )
    if expected:
        chosen = chosen.where(S.version == p("expected"))
    if fenced:
        chosen = chosen.where(FENCED)
    moved = (
        chosen.values(moved_values(trigger, fenced=fenced))
        .returning(*FIELDS, S.next_seq, locked.c.from_state)
        .cte("moved")
    )
    audit = audit_of(moved, sa.literal_column(f"'{trigger}'"), moved.c.from_state, moved.c.state)
    return Statement(sa.select(*[moved.c[column.name] for column in FIELDS]).add_cte(audit))


def _bind_move(request: r.Move) -> dict[str, Any]:
    (retention_map, retention), (max_age_map, max_age) = request.retention, request.max_age
    return {
        "p_tenant": request.tenant,
        "p_session_id": request.session_id,
        "p_reason": request.reason,
        "p_actor": request.actor,
        "p_expected": request.expected,
        "p_retention_map": retention_map,
        "p_retention_default": retention,
        "p_max_age_map": max_age_map,
        "p_max_age_default": max_age,
        **fence(request),
    }


LIVE = sa.and_(SHOWN, is_in(S.state, states.LIVE))
_TOUCH = Statement(sa.update(t.sessions).where(of_key(t.sessions), LIVE).values(ACTIVE_NOW).returning(S.session_id))


@cache
def _touch_many(passing: bool) -> Statement:
    ids = p("session_ids", TEXTS)
    # In key order, so that two batches never wait for each other in a circle.
    locked = (
        sa.select(S.tenant, S.session_id)
        .where(S.tenant == p("tenant"), S.session_id == sa.any_(ids), LIVE)
        .order_by(S.tenant, S.session_id)
        .with_for_update(skip_locked=passing)
        .cte("locked")
    )
    return Statement(
        sa.update(t.sessions)
        .where(S.tenant == locked.c.tenant, S.session_id == locked.c.session_id)
        .values(ACTIVE_NOW)
        .returning(S.session_id)
    )


def _touch_shape(request: r.Touch) -> Statement:
    return _TOUCH if _is_single(request) else _touch_many(request.passing)


def _is_single(request: r.Touch) -> bool:
    return len(request.session_ids) == 1 and not request.passing


def _bind_touch(request: r.Touch) -> dict[str, Any]:
    if _is_single(request):
        return {"p_tenant": request.tenant, "p_session_id": request.session_ids[0]}
    return {"p_tenant": request.tenant, "p_session_ids": list(request.session_ids)}


_MESSAGE = ("message_id", "role", "content", "encoding", "content_folded", "agent_id", "metadata")


@cache
def add_messages_statement(one: bool, auto_title: bool, fenced: bool) -> Statement:
    """Take the next numbers of the session, insert the messages under them."""
    n = ONE if one else sa.cast(p("n"), sa.BigInteger())
    values: dict[str, Any] = {
        "next_seq": S.next_seq + n,
        "message_count": S.message_count + n,
        "last_message_at": now(),
        "ghost_at": sa.null(),
        **CHANGED_NOW,
        **ACTIVE_NOW,
    }
    if auto_title:
        untitled = S.title.is_(None)
        values["title"] = sa.case((untitled, p("title", sa.Text())), else_=S.title)
        values["title_folded"] = sa.case((untitled, p("title_folded", sa.Text())), else_=S.title_folded)
    moved = (
        sa.update(t.sessions)
        .where(of_key(t.sessions), LIVE, allowed(fenced))
        .values(values)
        .returning(S.tenant, S.session_id, (S.next_seq - n).label("first_seq"), S.last_message_at)
        .cte("moved")
    )
    columns = ["tenant", "session_id", "seq", *_MESSAGE, "created_at"]
    if one:
        chosen = sa.select(
            moved.c.tenant, moved.c.session_id, moved.c.first_seq, *[p(name, sa.Text()) for name in _MESSAGE],
            moved.c.last_message_at,
        )  # fmt: skip
    else:
        arrays = [p(name, TEXTS) for name in _MESSAGE]
        given = sa.func.unnest(*arrays).table_valued(*_MESSAGE, with_ordinality="place", name="given").render_derived()
        chosen = sa.select(
            moved.c.tenant, moved.c.session_id, moved.c.first_seq + given.c.place - ONE,
            *[given.c[name] for name in _MESSAGE], moved.c.last_message_at,
        ).select_from(moved.join(given, sa.true()))  # fmt: skip
    added = sa.insert(t.messages).from_select(columns, chosen).cte("added")
    return Statement(sa.select(moved.c.first_seq, moved.c.last_message_at).add_cte(added))


def _bind_add(request: r.AddMessages) -> dict[str, Any]:
    if len(request.messages) == 1:
        values: dict[str, Any] = dict(request.messages[0])
    else:
        values = {name: [message[name] for message in request.messages] for name in _MESSAGE}
        values["n"] = len(request.messages)
    if request.auto_title is not None:
        values["title"], values["title_folded"] = request.auto_title
    return key(request) | bound(values) | fence(request)


def _read_add(request: r.AddMessages, rows: list[dict[str, Any]]) -> Any:
    if not rows:
        return None
    first, at = rows[0]["first_seq"], rows[0]["last_message_at"]
    return [(first + i, at) for i in range(len(request.messages))]


def _create_shape(request: r.CreateSession) -> Statement:
    entries = None if request.conversation is None else min(2, len(request.conversation.texts))
    more = tuple(name for name in request.values if name not in _GIVEN)
    return create_statement(*chunks.documents_of(request), entries, more)


SINGLES: dict[type[r.Request], Single] = {
    r.CreateSession: Single(_create_shape, _bind_create, first),
    **READS,
    r.Move: Single(
        lambda request: move_statement(request.trigger, request.expected is not None, request.fence is not None),
        _bind_move,
        first,
    ),
    r.Touch: Single(
        _touch_shape,
        _bind_touch,
        lambda _, rows: [row["session_id"] for row in rows],
    ),
    r.AddMessages: Single(
        lambda request: add_messages_statement(
            len(request.messages) == 1, request.auto_title is not None, request.fence is not None
        ),
        _bind_add,
        _read_add,
    ),
}
