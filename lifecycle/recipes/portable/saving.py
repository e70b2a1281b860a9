"""Saved states, checkpoints and forks on any database."""

from functools import cache
from typing import Any

import sqlalchemy as sa

from lifecycle import states
from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import (
    GET,
    LOCK_SHORT,
    Recipe,
    Row,
    active_now,
    barred,
    bound,
    changed_now,
    insert,
    is_in,
    key,
    lock,
    of_key,
    own_key,
    p,
    set_row,
    setting,
)
from lifecycle.recipes.portable.messages import MESSAGE_INSERT
from lifecycle.recipes.portable.sessions import create_session, insert_state
from lifecycle.recipes.statement import Many, Statement

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
    row = yield from lock(request, LOCK_SHORT)
    if row is None or row["state"] != "active" or barred(row, request.fence):
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
            **own_key(row), "token": request.token, "digest": request.digest, "version": version, "created_at": row["now"],
        }  # fmt: skip
        yield insert(t.tokens, tuple(token)), bound(token)
    yield from set_row(
        row,
        {"version": version, "ghost_at": None, **request.fields, **changed_now(row), **active_now(row)},
    )
    documents = dict(request.documents)
    if request.append is not None:
        found = yield _CONVERSATION, key(request)
        documents["conversation"] = joined(found[0]["conversation"] if found else None, request.append)
    stamp = {"version": version, "saved_at": row["now"]}
    if (yield setting(t.session_states, own_key(row), {**documents, **stamp})) == 0:
        yield insert_state(request, documents, version, row["now"])
    return version


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


STATE = Statement(sa.select(*t.session_states.c).where(of_key(t.session_states)))


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


DOCUMENTS = ("conversation", "context", "plan")


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
        **documents,
        "phase": row["phase"],
        "step": row["step"],
        "version": row["version"],
        "created_at": row["now"],
    }
    yield insert(t.checkpoints, tuple(values)), bound(values)
    yield from set_row(row, {"next_seq": row["next_seq"] + 1, **changed_now(row), **active_now(row)})
    yield from _drop_superseded(request, row)
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
def _delete_seqs(count: int) -> Statement:
    """Remove checkpoints by their seqs."""
    seqs: list[Any] = [p(f"seq_{i}", sa.BigInteger()) for i in range(count)]
    return Statement(sa.delete(t.checkpoints).where(of_key(t.checkpoints), t.checkpoints.c.seq.in_(seqs)))


def _drop_superseded(request: r.MakeCheckpoint, row: Row) -> Recipe:
    """Remove the checkpoints that the policy does not keep; the session's lock keeps others from making some."""
    policy = request.policies.for_kind(row["kind"])
    if policy.checkpoints_keep_last is None:
        return
    # SQLite walks past the documents of a row to come to its time; the seqs alone stand in the index.
    found = yield _SEQS if policy.checkpoints_keep_every is None else _TIMES, key(request)
    gone = policy.superseded([(kept["seq"], kept.get("created_at", row["now"])) for kept in found])[:_AT_ONCE]
    if gone:
        # Filled up to a power of two: few statements to compile and prepare, and one to send.
        gone += gone[-1:] * ((1 << (len(gone) - 1).bit_length()) - len(gone))
        yield _delete_seqs(len(gone)), key(request) | {f"p_seq_{i}": seq for i, seq in enumerate(gone)}


def list_checkpoints(request: r.ListCheckpoints) -> Recipe:
    """Read the checkpoints without their documents."""
    if not (yield GET, key(request)):
        return []
    return (yield _CHECKPOINTS, key(request))


def get_checkpoint(request: r.GetCheckpoint) -> Recipe:
    """Read one checkpoint with its documents."""
    if not (yield GET, key(request)):
        return None
    found = yield _CHECKPOINT, key(request) | {"p_seq": request.seq}
    return found[0] if found else None


def restore_checkpoint(request: r.RestoreCheckpoint) -> Recipe:
    """Copy a checkpoint back."""
    row = yield from lock(request)
    if row is None or row["state"] != "active" or barred(row, request.fence):
        return None
    found = yield _CHECKPOINT, key(request) | {"p_seq": request.seq}
    if not found:
        return 0
    version = row["version"] + 1
    saved = found[0]
    yield from set_row(
        row,
        {
            "version": version, "phase": saved["phase"], "step": saved["step"], "ghost_at": None,
            **changed_now(row), **active_now(row),
        },
    )  # fmt: skip
    documents = {name: saved[name] for name in DOCUMENTS}
    values = {**documents, "version": version, "saved_at": row["now"]}
    if (yield setting(t.session_states, own_key(row), values)) == 0:
        yield insert_state(request, documents, version, row["now"])
    return version


_MESSAGES_BEFORE = Statement(
    sa.select(*t.messages.c).where(of_key(t.messages), t.messages.c.seq < p("seq")).order_by(t.messages.c.seq)
)


def fork_session(request: r.ForkSession) -> Recipe:
    """Copy a session's state and messages into a new one."""
    row = yield from lock(request)
    if row is None:
        return 0
    source: Row | None
    if request.checkpoint is None:
        found = yield STATE, key(request)
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
    documents = {name: source[name] for name in DOCUMENTS if source.get(name) is not None}
    values = {name: row[name] for name in copied} | {
        "parent_id": request.session_id, "phase": source["phase"], "step": source["step"], "protected": False,
        "available_at": None, "runs": False,
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
        yield Many(insert(t.messages, MESSAGE_INSERT), stamped)
        yield from set_row(
            new,
            {"next_seq": 2 + len(old), "message_count": len(old), "last_message_at": old[-1]["created_at"]},
        )
    return new
