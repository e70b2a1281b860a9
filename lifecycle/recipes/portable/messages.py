"""Messages on any database."""

from functools import cache

import sqlalchemy as sa

from lifecycle import states
from lifecycle.errors import MessageExists
from lifecycle.models import tables as t
from lifecycle.models.types import Timestamp
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import (
    LOCK_SHORT,
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
    set_row,
)
from lifecycle.recipes.statement import Many, Statement

MESSAGE_INSERT = (
    "tenant", "session_id", "seq", "message_id", "role", "content", "encoding", "content_folded", "agent_id",
    "metadata", "created_at",
)  # fmt: skip


def add_messages(request: r.AddMessages) -> Recipe:
    """Take the next numbers, insert, count."""
    row = yield from lock(request, LOCK_SHORT)
    if row is None or row["state"] not in states.LIVE or barred(row, request.fence):
        return None
    return (yield from append_messages(row, request.messages, request.auto_title))


def append_messages(row: Row, new: tuple[Row, ...], auto_title: tuple[str, str] | None) -> Recipe:
    """Insert messages of a locked session and count them."""
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
    yield Many(insert(t.messages, MESSAGE_INSERT), stamped)
    values: Row = {
        "next_seq": first + len(new),
        "message_count": row["message_count"] + len(new),
        "last_message_at": row["now"],
        "ghost_at": None,
        **changed_now(row),
        **active_now(row),
    }
    if auto_title is not None and row["title"] is None:
        values |= {"title": auto_title[0], "title_folded": auto_title[1]}
    yield from set_row(row, values)
    return [(first + i, row["now"]) for i in range(len(new))]


MESSAGE_BY_ID = Statement(
    sa.select(*t.messages.c).where(of_key(t.messages), t.messages.c.message_id == p("message_id"))
)


_LAST_MESSAGE = Statement(sa.select(*t.messages.c).where(of_key(t.messages)).order_by(t.messages.c.seq.desc()).limit(1))


_DROP_MESSAGE = Statement(sa.delete(t.messages).where(of_key(t.messages), t.messages.c.seq == p("seq")))


# What a repeated message must have in common with the one that has its id.
SAME = ("role", "content", "encoding")


def add_missing_messages(request: r.AddMissingMessages) -> Recipe:
    """Insert those whose ids are new, unless another says something else than what is there; all of them back."""
    row = yield from lock(request)
    if row is None:
        return None
    there: list[Row] = []
    missing: list[Row] = []
    for message in request.messages:
        found = yield MESSAGE_BY_ID, key(request) | {"p_message_id": message["message_id"]}
        there.extend(found)
        if not found:
            missing.append(message)
        elif any(found[0][name] != message[name] for name in SAME):
            raise MessageExists(request.session_id, message["message_id"])
    if missing:
        if row["state"] not in states.LIVE or barred(row, request.fence):
            return None
        placed = yield from append_messages(row, tuple(missing), None)
        there.extend(
            {**message, **own_key(row), "seq": seq, "created_at": at}
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
    row = yield from lock(request)
    if row is None or row["state"] not in states.LIVE or barred(row, request.fence):
        return None
    if request.message_id is None:
        found = yield _LAST_MESSAGE, key(request)
    else:
        found = yield MESSAGE_BY_ID, key(request) | {"p_message_id": request.message_id}
    if not found:
        return {}
    yield _DROP_MESSAGE, key(request) | {"p_seq": found[0]["seq"]}
    yield from set_row(row, {"message_count": row["message_count"] - 1, **changed_now(row), **active_now(row)})
    return found[0]
