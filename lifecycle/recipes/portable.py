"""How each request is met on any database: several statements in one transaction.

A recipe is a generator: it yields a statement with its values and is sent the rows (or, for a statement
that returns none, the number of rows it changed). The session's row is locked first; what may be decided in
Python is decided in Python, from the locked row and the database's clock.
"""

from collections.abc import Generator, Mapping
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa

from lifecycle import deadlines, states
from lifecycle.models import tables as t
from lifecycle.models.types import Timestamp, now, transaction_id
from lifecycle.operations import requests as r
from lifecycle.recipes.statement import Many, Statement

Recipe = Generator[Any, Any, Any]
Row = dict[str, Any]


def p(name: str, kind: Any = None) -> Any:
    """A parameter, named apart from the columns."""
    return sa.bindparam(f"p_{name}", type_=kind, required=True)


def bound(values: Mapping[str, Any]) -> Row:
    """Values by parameter name."""
    return {f"p_{name}": value for name, value in values.items()}


def of_key(table: sa.Table) -> Any:
    """The condition that a row belongs to the session."""
    return sa.and_(table.c.tenant == p("tenant"), table.c.session_id == p("session_id"))


def key(request: Any) -> Row:
    """The parameters of `of_key`."""
    return {"p_tenant": request.tenant, "p_session_id": request.session_id}


@cache
def insert(table: sa.Table, columns: tuple[str, ...]) -> Statement:
    """Insert one row with these columns."""
    values = {name: p(name, table.c[name].type) for name in columns}
    if table is t.transitions:
        values["txid"] = transaction_id()
    return Statement(sa.insert(table).values(values))


@cache
def update(table: sa.Table, columns: tuple[str, ...], by: tuple[str, ...] = ("tenant", "session_id")) -> Statement:
    """Set these columns of the row with this key."""
    matches = [table.c[name] == p(f"by_{name}", table.c[name].type) for name in by]
    return Statement(sa.update(table).where(*matches).values({name: p(name, table.c[name].type) for name in columns}))


def setting(table: sa.Table, row_key: Row, values: Row) -> tuple[Statement, Row]:
    """The statement and values to set columns of one row."""
    by = {f"p_by_{name}": value for name, value in row_key.items()}
    return update(table, tuple(values), tuple(row_key)), bound(values) | by


LOCK = Statement(sa.select(*t.sessions.c, now().label("now")).where(of_key(t.sessions)).with_for_update())
# What saves, messages and signs of life look at: reading the rest would cost them as much as writing.
_LOCK_SHORT = Statement(
    sa.select(
        *[
            t.sessions.c[name]
            for name in (
                "tenant", "session_id", "state", "title", "version", "next_seq", "message_count", "last_active_at",
                "idle_active", "idle_suspended", "max_age_at", "expires_at", "deleted_at", "lease_holder",
                "lease_expires_at",
            )
        ],
        now().label("now"),
    )
    .where(of_key(t.sessions))
    .with_for_update()
)  # fmt: skip
GET = Statement(sa.select(*t.sessions.c).where(of_key(t.sessions), t.sessions.c.deleted_at.is_(None)))
GET_ANY = Statement(sa.select(*t.sessions.c).where(of_key(t.sessions)))
NOW = Statement(sa.select(now().label("now")))


def _lock(request: Any, statement: Statement = LOCK) -> Recipe:
    """The session's row, locked, with `now`; None where it is missing or hidden."""
    found = yield statement, key(request)
    return found[0] if found and found[0]["deleted_at"] is None else None


def _leased(row: Row) -> bool:
    return (
        row["lease_holder"] is not None and row["lease_expires_at"] is not None and row["lease_expires_at"] > row["now"]
    )


def _audit(row: Row, seq: int, trigger: str, source: str | None, target: str | None, version: int, **more: Any) -> Any:
    values = {
        "tenant": row["tenant"],
        "session_id": row["session_id"],
        "seq": seq,
        "trigger_name": trigger,
        "from_state": source,
        "to_state": target,
        "reason": more.get("reason"),
        "actor": more.get("actor"),
        "version": version,
        "created_at": row["now"],
    }
    return insert(t.transitions, tuple(values)), bound(values)


def _active_now(row: Row) -> Row:
    """The columns that any activity changes. The deadline never moves down."""
    idle = row["idle_active"] if row["state"] == "active" else row["idle_suspended"]
    until = deadlines.expiry(row["now"], idle, row["max_age_at"])
    if until is not None and row["expires_at"] is not None and idle is not None:
        until = max(until, row["expires_at"])
    return {"last_active_at": max(row["now"], row["last_active_at"]), "expires_at": until}


def _changed_now(row: Row) -> Row:
    """The columns that any change of content changes."""
    return {"updated_at": row["now"], "listed_at": deadlines.minute(row["now"])}


def _own(row: Row) -> Row:
    return {"tenant": row["tenant"], "session_id": row["session_id"]}


def _set(row: Row, values: Row) -> Recipe:
    """Write columns of a locked row and keep the mapping in step."""
    yield setting(t.sessions, _own(row), values)
    row.update(values)


_TAKEN = Statement(sa.select(t.sessions.c.session_id).where(of_key(t.sessions)))


def create_session(request: r.CreateSession) -> Recipe:
    """Insert unless the id is taken."""
    (clock,) = yield NOW, {}
    at: datetime = clock["now"]
    max_age_at = deadlines.later(at, request.max_age)
    row: Row = {
        "tenant": request.tenant,
        "session_id": request.session_id,
        **request.values,
        "state": states.INITIAL,
        "version": 1,
        "next_seq": 2,
        "message_count": 0,
        "created_at": at,
        "updated_at": at,
        "listed_at": deadlines.minute(at),
        "last_active_at": at,
        "ghost_at": deadlines.later(at, request.ghosts),
        "max_age_at": max_age_at,
        "expires_at": deadlines.expiry(at, request.idle, max_age_at),
        "lease_epoch": 0,
        "attempts": 0,
        "pending_approvals": 0,
    }
    taken = yield _TAKEN, key(request)
    if taken:
        return None
    yield insert(t.sessions, tuple(row)), bound(row)
    yield _audit(row | {"now": at}, 1, "create", None, states.INITIAL, 1, actor=request.actor)
    if request.documents is not None:
        yield _insert_state(request, request.documents, 1, at)
    return {column.name: None for column in t.sessions.c} | row


def _insert_state(request: Any, documents: Mapping[str, str], version: int, at: datetime) -> Any:
    values = {
        "tenant": request.tenant,
        "session_id": request.session_id,
        **documents,
        "version": version,
        "saved_at": at,
    }
    return insert(t.session_states, tuple(values)), bound(values)


def get_session(request: r.GetSession) -> Recipe:
    """Read one row."""
    found = yield GET_ANY if request.deleted else GET, key(request)
    return found[0] if found else None


_TOKEN = Statement(
    sa.select(t.tokens.c.digest, t.tokens.c.version).where(of_key(t.tokens), t.tokens.c.token == p("token"))
)


def get_token(request: r.GetToken) -> Recipe:
    """Read what a retry token was used for."""
    found = yield _TOKEN, key(request) | {"p_token": request.token}
    return (found[0]["digest"], found[0]["version"]) if found else None


_CONVERSATION = Statement(sa.select(t.session_states.c.conversation).where(of_key(t.session_states)))


def joined(old: str | None, added: str) -> str:
    """Two JSON lists as one, without reading either."""
    return added if old in {None, "null", "[]"} else f"{str(old)[:-1]},{added[1:]}"


def save_state(request: r.SaveState) -> Recipe:
    """Check, bump the version, write the documents."""
    row = yield from _lock(request, _LOCK_SHORT)
    if row is None or row["state"] != "active" or _leased(row):
        return None
    if request.expected is not None and row["version"] != request.expected:
        if request.token is not None and (yield _TOKEN, key(request) | {"p_token": request.token}):
            raise r.DuplicateKey
        return None
    version = row["version"] + 1
    if request.token is not None:
        if (yield _TOKEN, key(request) | {"p_token": request.token}):
            raise r.DuplicateKey
        token = {
            **_own(row), "token": request.token, "digest": request.digest, "version": version, "created_at": row["now"],
        }  # fmt: skip
        yield insert(t.tokens, tuple(token)), bound(token)
    yield from _set(
        row,
        {"version": version, "ghost_at": None, **request.fields, **_changed_now(row), **_active_now(row)},
    )
    documents = dict(request.documents)
    if request.append is not None:
        found = yield _CONVERSATION, key(request)
        documents["conversation"] = joined(found[0]["conversation"] if found else None, request.append)
    stamp = {"version": version, "saved_at": row["now"]}
    if (yield setting(t.session_states, _own(row), {**documents, **stamp})) == 0:
        yield _insert_state(request, documents, version, row["now"])
    return version


_STATE_COLUMNS = [
    t.session_states.c[name] for name in ("session_id", "conversation", "context", "plan", "version", "saved_at")
]


@cache
def load_statement(any_state: bool) -> Statement:
    """Read the saved state with the session's phase and step."""
    match = sa.and_(
        t.sessions.c.tenant == t.session_states.c.tenant, t.sessions.c.session_id == t.session_states.c.session_id
    )
    chosen = sa.select(
        t.session_states.c.session_id,
        t.session_states.c.conversation,
        t.session_states.c.context,
        t.session_states.c.plan,
        t.sessions.c.phase,
        t.sessions.c.step,
        t.sessions.c.version,
        t.session_states.c.saved_at,
    ).where(of_key(t.sessions), match, t.sessions.c.deleted_at.is_(None))
    return Statement(chosen if any_state else chosen.where(is_in(t.sessions.c.state, states.LIVE)))


def is_in(column: Any, names: tuple[str, ...]) -> Any:
    """A condition with the names spelt out, as partial indexes need it."""
    return column.in_([sa.literal_column(f"'{name}'") for name in names])


def load_state(request: r.LoadState) -> Recipe:
    """Read the saved state."""
    found = yield load_statement(request.any_state), key(request)
    return found[0] if found else None


def seconds_for(kind: str, limits: r.SecondsMap) -> int | None:
    """A kind's seconds from a map as policies make it."""
    import json

    known: dict[str, int | None] = json.loads(limits[0])
    return known.get(kind, limits[1])


def moved_columns(row: Row, request: Any, target: str) -> Row:
    """What a transition writes into the session's row."""
    leased = row["lease_holder"] is not None
    values: Row = {
        "state": target,
        "reason": request.reason,
        "version": row["version"] + 1,
        "next_seq": row["next_seq"] + 1,
        **_changed_now(row),
        "last_active_at": max(row["now"], row["last_active_at"]),
        "lease_holder": None,
        "lease_expires_at": None,
        "lease_epoch": row["lease_epoch"] + leased,
    }
    if target in states.TERMINAL:
        retention = seconds_for(row["kind"], request.retention)
        values |= {
            "ended_at": row["now"],
            "prune_at": deadlines.later(row["now"], retention),
            "expires_at": None,
            "ghost_at": None,
            "available_at": None,
        }
        return values
    max_age_at = row["max_age_at"]
    if row["state"] in states.TERMINAL:
        max_age_at = deadlines.later(row["now"], seconds_for(row["kind"], request.max_age))
    idle = row["idle_active"] if target == "active" else row["idle_suspended"]
    return values | {
        "ended_at": None,
        "prune_at": None,
        "max_age_at": max_age_at,
        "expires_at": deadlines.expiry(row["now"], idle, max_age_at),
    }


def move(request: r.Move) -> Recipe:
    """Compare the state and set the new one, with its audit row."""
    row = yield from _lock(request)
    wanted = states.transition(request.trigger)
    if row is None or row["state"] not in wanted.sources:
        return None
    if request.expected is not None and row["version"] != request.expected:
        return None
    yield from move_locked(row, request, request.trigger)
    return row


def move_locked(row: Row, request: Any, trigger: str) -> Recipe:
    """Fire a trigger on a row that is locked already."""
    source, seq = row["state"], row["next_seq"]
    target = states.transition(trigger).target
    yield from _set(row, moved_columns(row, request, target))
    yield _audit(row, seq, trigger, source, target, row["version"], reason=request.reason, actor=request.actor)


def touch(request: r.Touch) -> Recipe:
    """Push the deadlines of live sessions, in key order."""
    touched = []
    for session_id in request.session_ids:
        found = yield _LOCK_SHORT, {"p_tenant": request.tenant, "p_session_id": session_id}
        if found and found[0]["deleted_at"] is None and found[0]["state"] in states.LIVE:
            yield setting(t.sessions, _own(found[0]), _active_now(found[0]))
            touched.append(session_id)
    return touched


_MESSAGE_INSERT = (
    "tenant", "session_id", "seq", "message_id", "role", "content", "encoding", "content_folded", "agent_id",
    "metadata", "created_at",
)  # fmt: skip


def add_messages(request: r.AddMessages) -> Recipe:
    """Take the next numbers, insert, count."""
    row = yield from _lock(request, _LOCK_SHORT)
    if row is None or row["state"] not in states.LIVE or _leased(row):
        return None
    return (yield from _append(row, request.messages, request.auto_title))


def _append(row: Row, new: tuple[Row, ...], auto_title: tuple[str, str] | None) -> Recipe:
    first = row["next_seq"]
    tenant, session_id, now_ = row["tenant"], row["session_id"], row["now"]
    # Written out, as it is done for each message of a batch.
    stamped = [
        {
            "p_tenant": tenant,
            "p_session_id": session_id,
            "p_seq": first + i,
            "p_message_id": message["message_id"],
            "p_role": message["role"],
            "p_content": message["content"],
            "p_encoding": message["encoding"],
            "p_content_folded": message["content_folded"],
            "p_agent_id": message["agent_id"],
            "p_metadata": message["metadata"],
            "p_created_at": now_,
        }
        for i, message in enumerate(new)
    ]
    yield Many(insert(t.messages, _MESSAGE_INSERT), stamped)
    values: Row = {
        "next_seq": first + len(new),
        "message_count": row["message_count"] + len(new),
        "last_message_at": row["now"],
        "ghost_at": None,
        **_changed_now(row),
        **_active_now(row),
    }
    if auto_title is not None and row["title"] is None:
        values |= {"title": auto_title[0], "title_folded": auto_title[1]}
    yield from _set(row, values)
    return [(first + i, row["now"]) for i in range(len(new))]


_MESSAGE_BY_ID = Statement(
    sa.select(*t.messages.c).where(of_key(t.messages), t.messages.c.message_id == p("message_id"))
)
_LAST_MESSAGE = Statement(sa.select(*t.messages.c).where(of_key(t.messages)).order_by(t.messages.c.seq.desc()).limit(1))
_DROP_MESSAGE = Statement(sa.delete(t.messages).where(of_key(t.messages), t.messages.c.seq == p("seq")))


def add_missing_messages(request: r.AddMissingMessages) -> Recipe:
    """Insert those whose ids are new; all of them back."""
    row = yield from _lock(request)
    if row is None:
        return None
    there: list[Row] = []
    missing: list[Row] = []
    for message in request.messages:
        found = yield _MESSAGE_BY_ID, key(request) | {"p_message_id": message["message_id"]}
        there.extend(found)
        if not found:
            missing.append(message)
    if missing:
        if row["state"] not in states.LIVE or _leased(row):
            return None
        placed = yield from _append(row, tuple(missing), None)
        there.extend(
            {**message, **_own(row), "seq": seq, "created_at": at}
            for message, (seq, at) in zip(missing, placed, strict=True)
        )
    return there


@cache
def messages_statement(since: bool, after: bool, before: bool) -> Statement:
    """A page of messages, in order (or the last ones before a number)."""
    chosen = sa.select(*t.messages.c).where(of_key(t.messages), VISIBLE)
    if since:
        chosen = chosen.where(t.messages.c.created_at >= p("since", Timestamp()))
    if after:
        chosen = chosen.where(t.messages.c.seq > p("after"))
    if before:
        chosen = chosen.where(t.messages.c.seq < p("before"))
    order = t.messages.c.seq.desc() if before and not after else t.messages.c.seq
    return Statement(chosen.order_by(order).limit(p("limit", sa.Integer())).offset(p("offset", sa.Integer())))


VISIBLE = (
    sa.select(1)
    .where(
        t.sessions.c.tenant == t.messages.c.tenant,
        t.sessions.c.session_id == t.messages.c.session_id,
        t.sessions.c.deleted_at.is_(None),
    )
    .exists()
)


def get_messages(request: r.GetMessages) -> Recipe:
    """Read a page."""
    statement = messages_statement(request.since is not None, request.after is not None, request.before is not None)
    values = {name: getattr(request, name) for name in ("limit", "offset", "since", "after", "before")}
    found = yield statement, key(request) | bound(values)
    if request.before is not None and request.after is None:
        found.reverse()
    return found


def remove_message(request: r.RemoveMessage) -> Recipe:
    """Remove one message: its row, an empty mapping where there is none, None if refused."""
    row = yield from _lock(request)
    if row is None or row["state"] not in states.LIVE or _leased(row):
        return None
    if request.message_id is None:
        found = yield _LAST_MESSAGE, key(request)
    else:
        found = yield _MESSAGE_BY_ID, key(request) | {"p_message_id": request.message_id}
    if not found:
        return {}
    yield _DROP_MESSAGE, key(request) | {"p_seq": found[0]["seq"]}
    yield from _set(row, {"message_count": row["message_count"] - 1, **_changed_now(row), **_active_now(row)})
    return found[0]


def update_session(request: r.UpdateSession) -> Recipe:
    """Set columns; the version grows."""
    row = yield from _lock(request)
    if row is None or (request.expected is not None and row["version"] != request.expected):
        return None
    yield from _set(row, {**request.values, "version": row["version"] + 1, **_changed_now(row)})
    if request.restamp and row["state"] in states.LIVE:
        idle = row["idle_active"] if row["state"] == "active" else row["idle_suspended"]
        yield from _set(row, {"expires_at": deadlines.expiry(row["now"], idle, row["max_age_at"])})
    return row


_CHILD_KEYS = Statement(
    sa.select(t.sessions.c.session_id).where(
        t.sessions.c.tenant == p("tenant"), t.sessions.c.parent_id == p("session_id")
    ).order_by(t.sessions.c.session_id)
)  # fmt: skip
DROPS = tuple(Statement(sa.delete(table).where(of_key(table))) for table in (*t.CHILDREN, t.transitions, t.sessions))


def delete_sessions(request: r.DeleteSessions) -> Recipe:
    """Lock, check, then remove children and sessions by key, leaving a tombstone each."""
    from lifecycle.errors import SessionBusy, SessionProtected

    keys = list(request.keys)
    if request.descendants:
        seen = set(keys)
        for tenant, session_id in keys:
            below = yield _CHILD_KEYS, {"p_tenant": tenant, "p_session_id": session_id}
            new = [(tenant, child["session_id"]) for child in below if (tenant, child["session_id"]) not in seen]
            seen.update(new)
            keys.extend(new)
    found = []
    for tenant, session_id in sorted(keys):
        locked = yield LOCK, {"p_tenant": tenant, "p_session_id": session_id}
        found.extend(locked)
    for row in found:
        if not request.force and row["protected"]:
            raise SessionProtected(row["session_id"])
        if not request.force and _leased(row):
            raise SessionBusy(row["session_id"], row["lease_holder"], row["lease_expires_at"])
    yield from drop(found, request)
    return len(found)


def drop(found: list[Row], request: Any) -> Recipe:
    """Remove locked sessions with all they own."""
    if not found:
        return
    keys = [{"p_tenant": row["tenant"], "p_session_id": row["session_id"]} for row in found]
    for statement in DROPS:
        yield Many(statement, keys)
    tombs = [
        _audit(
            row,
            row["next_seq"],
            "delete",
            row["state"],
            None,
            row["version"],
            reason=request.reason,
            actor=request.actor,
        )
        for row in found
    ]
    yield Many(tombs[0][0], [values for _, values in tombs])


def soft_delete(request: r.SoftDelete) -> Recipe:
    """Set or clear `deleted_at`; retention runs from then."""
    found = yield LOCK, key(request)
    if not found:
        return None
    row = found[0]
    if (row["deleted_at"] is not None) == request.hide:
        return None if request.hide else row
    ended = row["state"] if row["state"] in states.TERMINAL else "ended"
    retention = seconds_for(row["kind"], request.retention[ended])
    if request.hide:
        from lifecycle.errors import SessionProtected

        if row["protected"]:
            raise SessionProtected(row["session_id"])
        prune_at = deadlines.later(row["now"], retention)
    else:
        prune_at = None if row["ended_at"] is None else deadlines.later(row["ended_at"], retention)
    seq = row["next_seq"]
    values = {
        "deleted_at": row["now"] if request.hide else None,
        "prune_at": prune_at,
        "version": row["version"] + 1,
        "next_seq": seq + 1,
        **_changed_now(row),
    }
    if not request.hide and row["state"] in states.LIVE:
        values |= _active_now(row)
    yield from _set(row, values)
    trigger = "soft_delete" if request.hide else "undelete"
    yield _audit(row, seq, trigger, row["state"], row["state"], row["version"], actor=request.actor)
    return row


_HISTORY = Statement(
    sa.select(*t.transitions.c)
    .where(of_key(t.transitions))
    .order_by(t.transitions.c.id)
    .limit(p("limit", sa.Integer()))
)


def get_history(request: r.GetHistory) -> Recipe:
    """Read the audit log."""
    return (yield _HISTORY, key(request) | {"p_limit": request.limit})


_STATE = Statement(sa.select(*t.session_states.c).where(of_key(t.session_states)))
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
_CHECKPOINT = Statement(sa.select(*t.checkpoints.c).where(of_key(t.checkpoints), t.checkpoints.c.seq == p("seq")))
_DOCUMENTS = ("conversation", "context", "plan")


def make_checkpoint(request: r.MakeCheckpoint) -> Recipe:
    """Copy the state; the session's lock keeps a save from slipping between version and copy."""
    row = yield from _lock(request)
    if row is None or row["state"] not in states.LIVE or _leased(row):
        return None
    found = yield _STATE, key(request)
    documents = {name: found[0][name] for name in _DOCUMENTS} if found else {}
    values: Row = {
        **_own(row),
        "seq": row["next_seq"],
        "label": request.label,
        "data": request.data,
        **documents,
        "phase": row["phase"],
        "step": row["step"],
        "version": row["version"],
        "created_at": row["now"],
    }
    yield insert(t.checkpoints, tuple(values)), bound(values)
    yield from _set(row, {"next_seq": row["next_seq"] + 1, **_changed_now(row), **_active_now(row)})
    return values


def list_checkpoints(request: r.ListCheckpoints) -> Recipe:
    """Read the checkpoints without their documents."""
    if not (yield GET, key(request)):
        return []
    return (yield _CHECKPOINTS, key(request))


def restore_checkpoint(request: r.RestoreCheckpoint) -> Recipe:
    """Copy a checkpoint back."""
    row = yield from _lock(request)
    if row is None or row["state"] != "active" or _leased(row):
        return None
    found = yield _CHECKPOINT, key(request) | {"p_seq": request.seq}
    if not found:
        return 0
    version = row["version"] + 1
    saved = found[0]
    yield from _set(
        row,
        {
            "version": version, "phase": saved["phase"], "step": saved["step"], "ghost_at": None,
            **_changed_now(row), **_active_now(row),
        },
    )  # fmt: skip
    documents = {name: saved[name] for name in _DOCUMENTS}
    values = {**documents, "version": version, "saved_at": row["now"]}
    if (yield setting(t.session_states, _own(row), values)) == 0:
        yield _insert_state(request, documents, version, row["now"])
    return version


_MESSAGES_BEFORE = Statement(
    sa.select(*t.messages.c).where(of_key(t.messages), t.messages.c.seq < p("seq")).order_by(t.messages.c.seq)
)


def fork_session(request: r.ForkSession) -> Recipe:
    """Copy a session's state and messages into a new one."""
    row = yield from _lock(request)
    if row is None:
        return 0
    source: Row | None
    if request.checkpoint is None:
        found = yield _STATE, key(request)
        source = (found[0] if found else {}) | {"phase": row["phase"], "step": row["step"]}
        upto = row["next_seq"]
    else:
        found = yield _CHECKPOINT, key(request) | {"p_seq": request.checkpoint}
        if not found:
            return 0
        source, upto = found[0], request.checkpoint
    copied = ("kind", "user_id", "agent_id", "title", "title_folded", "metadata", "config", "idle_active",
              "idle_suspended", "idle_override")  # fmt: skip
    policy = request.policies.for_kind(row["kind"])
    documents = {name: source[name] for name in _DOCUMENTS if source.get(name) is not None}
    values = {name: row[name] for name in copied} | {
        "parent_id": request.session_id, "phase": source["phase"], "step": source["step"], "protected": False,
        "available_at": None,
    }  # fmt: skip
    creation = r.CreateSession(
        request.tenant,
        request.new_id,
        values,
        documents or None,
        policy.max_age,
        row["idle_active"],
        None,
        request.actor,
    )
    new = yield from create_session(creation)
    if new is None:
        return None
    old = yield _MESSAGES_BEFORE, key(request) | {"p_seq": upto}
    if old:
        stamped = [bound({**message, "session_id": request.new_id, "seq": 2 + i}) for i, message in enumerate(old)]
        yield Many(insert(t.messages, _MESSAGE_INSERT), stamped)
        yield from _set(
            new,
            {"next_seq": 2 + len(old), "message_count": len(old), "last_message_at": old[-1]["created_at"]},
        )
    return new


def request_approval(request: r.RequestApproval) -> Recipe:
    """Insert the request; suspend the session in the same transaction."""
    row = yield from _lock(request)
    if row is None or row["state"] not in states.LIVE:
        return None
    suspends = request.suspend and row["state"] == "active"
    values = {
        **_own(row),
        **request.values,
        "state": "pending",
        "requested_at": row["now"],
        "expires_at": deadlines.later(row["now"], request.expires_in),
        "suspended": suspends,
    }
    yield insert(t.approvals, tuple(values)), bound(values)
    if suspends:
        fired = r.Move(
            request.tenant,
            request.session_id,
            "suspend",
            "waits for approval",
            request.values["requested_by"],
            ("{}", None),
            ("{}", None),
        )
        yield from move_locked(row, fired, "suspend")
    yield from _set(row, {"pending_approvals": row["pending_approvals"] + 1})
    return values | {"resolved_by": None, "resolved_at": None, "note": None}


_APPROVAL = Statement(
    sa.select(*t.approvals.c)
    .where(of_key(t.approvals), t.approvals.c.approval_id == p("approval_id"))
    .with_for_update()
)
_WAITING = Statement(
    sa.select(sa.func.count().label("waiting")).where(
        of_key(t.approvals), t.approvals.c.state == "pending", t.approvals.c.suspended.is_(True)
    )
)


def resolve_approval(request: r.ResolveApproval) -> Recipe:
    """Decide; resume what the request suspended, once nothing else waits."""
    row = yield from _lock(request)
    if row is None:
        return None
    found = yield _APPROVAL, key(request) | {"p_approval_id": request.approval_id}
    if not found or found[0]["state"] != "pending":
        return found[0] if found else None
    approval = found[0]
    late = approval["expires_at"] is not None and approval["expires_at"] <= row["now"]
    state = "expired" if late else request.state
    yield from _decide(row, approval, state, request.by, request.note)
    return approval


def _decide(row: Row, approval: Row, state: str, by: str | None, note: str | None) -> Recipe:
    values = {"state": state, "resolved_by": by, "resolved_at": row["now"], "note": note}
    yield setting(t.approvals, {**_own(row), "approval_id": approval["approval_id"]}, values)
    approval.update(values)
    yield from _set(row, {"pending_approvals": max(0, row["pending_approvals"] - 1)})
    if approval["suspended"] and row["state"] == "suspended":
        (rest,) = yield _WAITING, {"p_tenant": row["tenant"], "p_session_id": row["session_id"]}
        if not rest["waiting"]:
            fired = r.Move(
                row["tenant"], row["session_id"], "resume", f"approval {state}", by, ("{}", None), ("{}", None)
            )
            yield from move_locked(row, fired, "resume")


@cache
def approvals_statement(tenant: bool, session: bool, state: bool) -> Statement:
    """A list of approvals."""
    chosen = sa.select(*t.approvals.c)
    if tenant:
        chosen = chosen.where(t.approvals.c.tenant == p("tenant"))
    if session:
        chosen = chosen.where(t.approvals.c.session_id == p("session_id"))
    if state:
        chosen = chosen.where(t.approvals.c.state == p("state"))
    return Statement(
        chosen.order_by(t.approvals.c.requested_at, t.approvals.c.approval_id).limit(p("limit", sa.Integer()))
    )


def list_approvals(request: r.ListApprovals) -> Recipe:
    """Read approvals."""
    statement = approvals_statement(
        request.tenant is not None, request.session_id is not None, request.state is not None
    )
    names = ("tenant", "session_id", "state", "limit")
    return (yield statement, bound({name: getattr(request, name) for name in names}))


def open_connection(request: r.OpenConnection) -> Recipe:
    """Insert, or take over the row of the same id."""
    row = yield from _lock(request)
    if row is None or row["state"] not in states.LIVE:
        return None
    own = {**_own(row), "connection_id": request.connection_id}
    values = {
        "client": request.client,
        "opened_at": row["now"],
        "beat_at": row["now"],
        "silent_at": deadlines.minute(row["now"]),
    }
    if (yield setting(t.connections, own, values)) == 0:
        yield insert(t.connections, tuple(own | values)), bound(own | values)
    yield from _set(row, _active_now(row))
    return own | values


def beat_connection(request: r.BeatConnection) -> Recipe:
    """Renew a connection's and its session's sign of life."""
    row = yield from _lock(request)
    if row is None:
        return False
    own = {**_own(row), "connection_id": request.connection_id}
    beat = {"beat_at": row["now"], "silent_at": deadlines.minute(row["now"])}
    if (yield setting(t.connections, own, beat)) == 0:
        return False
    if row["state"] in states.LIVE:
        yield from _set(row, _active_now(row))
    return True


_CLOSE = Statement(
    sa.delete(t.connections).where(of_key(t.connections), t.connections.c.connection_id == p("connection_id"))
)


def close_connection(request: r.CloseConnection) -> Recipe:
    """Remove a connection."""
    return bool((yield _CLOSE, key(request) | {"p_connection_id": request.connection_id}))


@cache
def connections_statement(tenant: bool, session: bool) -> Statement:
    """A list of connections."""
    chosen = sa.select(*t.connections.c)
    if tenant:
        chosen = chosen.where(t.connections.c.tenant == p("tenant"))
    if session:
        chosen = chosen.where(t.connections.c.session_id == p("session_id"))
    return Statement(chosen.order_by(t.connections.c.opened_at, t.connections.c.connection_id))


def list_connections(request: r.ListConnections) -> Recipe:
    """Read connections."""
    statement = connections_statement(request.tenant is not None, request.session_id is not None)
    return (yield statement, bound({"tenant": request.tenant, "session_id": request.session_id}))


def beat_worker(request: r.BeatWorker) -> Recipe:
    """Insert, renew or remove a worker's row."""
    (clock,) = yield NOW, {}
    own = {"worker_id": request.worker_id}
    if request.state is None:
        yield _DROP_WORKER, bound(own)
        return
    if (yield setting(t.workers, own, {"beat_at": clock["now"], "state": request.state})) == 0:
        values = {
            **own, "host": request.host, "pid": request.pid, "release_name": request.release, "state": request.state,
            "started_at": clock["now"], "beat_at": clock["now"],
        }  # fmt: skip
        yield insert(t.workers, tuple(values)), bound(values)


_DROP_WORKER = Statement(sa.delete(t.workers).where(t.workers.c.worker_id == p("worker_id")))
_WORKERS = Statement(sa.select(*t.workers.c).order_by(t.workers.c.started_at))
_JOBS = Statement(sa.select(*t.worker_jobs.c).order_by(t.worker_jobs.c.job, t.worker_jobs.c.slice_no))
_JOB = Statement(
    sa.select(*t.worker_jobs.c, now().label("now"))
    .where(t.worker_jobs.c.job == p("job"), t.worker_jobs.c.slice_no == p("slice_no"))
    .with_for_update()
)


def list_workers(_request: r.ListWorkers) -> Recipe:
    """Read workers and jobs."""
    workers = yield _WORKERS, {}
    jobs = yield _JOBS, {}
    return workers, jobs


def take_job(request: r.TakeJob) -> Recipe:
    """Lease a job if nobody holds it: the next term."""
    own = {"job": request.job, "slice_no": request.slice}
    found = yield _JOB, bound(own)
    if not found:
        yield insert(t.worker_jobs, (*own, "term")), bound(own | {"term": 0})
        found = yield _JOB, bound(own)
    row = found[0]
    if row["holder"] not in {None, request.holder} and row["lease_expires_at"] > row["now"]:
        return None
    term = row["term"] + 1
    yield setting(
        t.worker_jobs,
        own,
        {
            "holder": request.holder,
            "term": term,
            "lease_expires_at": deadlines.later(row["now"], request.ttl),
            "last_started_at": row["now"],
        },
    )
    return term


def end_job(request: r.EndJob) -> Recipe:
    """Give a job back under its term."""
    own = {"job": request.job, "slice_no": request.slice}
    found = yield _JOB, bound(own)
    if not found or found[0]["holder"] != request.holder or found[0]["term"] != request.term:
        return False
    values: Row = {
        "holder": None,
        "lease_expires_at": None,
        "last_finished_at": found[0]["now"],
        "last_error": request.error,
    }
    if request.result is not None:
        values["last_result"] = request.result
    yield setting(t.worker_jobs, own, values)
    return True
