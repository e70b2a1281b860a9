"""Forks on any database: a new session with a copy of all that another's saved state, or a checkpoint, is made of."""

import sqlalchemy as sa

from lifecycle.entries import columns_of, runs_of
from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.pieces import names_in
from lifecycle.recipes.portable.base import Recipe, Row, bound, insert, key, lock, of_key, own_key, p, set_row
from lifecycle.recipes.portable.checkpoints import CHECKPOINT, DOCUMENTS
from lifecycle.recipes.portable.messages import MESSAGE_INSERT
from lifecycle.recipes.portable.saving import STATE
from lifecycle.recipes.portable.sessions import create_session
from lifecycle.recipes.statement import Many, Statement

_MESSAGES_BEFORE = Statement(
    sa.select(*t.messages.c).where(of_key(t.messages), t.messages.c.seq < p("seq")).order_by(t.messages.c.seq)
)


def fork_session(request: r.ForkSession) -> Recipe:
    """Copy a session's state and messages into a new one."""
    row = yield from lock(request)
    if row is None:
        return 0
    if request.checkpoint is None:
        found = yield STATE, key(request)
        source, upto = row | {name: found[0][name] if found else None for name in DOCUMENTS}, row["next_seq"]
    else:
        found = yield CHECKPOINT, key(request) | {"p_seq": request.checkpoint}
        if not found:
            return 0
        source, upto = found[0], request.checkpoint
    copied = ("kind", "user_id", "agent_id", "title", "title_folded", "metadata", "config", "idle_active",
              "idle_suspended", "idle_override")  # fmt: skip
    policy = request.policies.for_kind(row["kind"])
    values = {name: row[name] for name in copied} | {
        "parent_id": request.session_id, "phase": source["phase"], "step": source["step"], "protected": False,
        "available_at": None, "runs": False,
    }  # fmt: skip
    creation = r.CreateSession(
        request.tenant,
        request.new_id,
        values,
        {},
        None,
        policy.max_age,
        row["idle_active"],
        None,
        request.actor,
    )
    new = yield from create_session(creation)
    if new is None:
        return None
    yield from _copy_state(row, source, new)
    old = yield _MESSAGES_BEFORE, key(request) | {"p_seq": upto}
    if old:
        stamped = [bound({**message, "session_id": request.new_id, "seq": 2 + i}) for i, message in enumerate(old)]
        yield Many(insert(t.messages, MESSAGE_INSERT), stamped)
        yield from set_row(
            new,
            {"next_seq": 2 + len(old), "message_count": len(old), "last_message_at": old[-1]["created_at"]},
        )
    return new


E, V = t.entries.c, t.values.c
_COPY_RUN = Statement(
    sa.insert(t.entries).from_select(
        ["tenant", "session_id", "number", "digest", "content"],
        sa.select(E.tenant, p("new_id", E.session_id.type), E.number, E.digest, E.content).where(
            of_key(t.entries), E.number >= p("first", E.number.type), E.number <= p("last", E.number.type)
        ),
    )
)
_COPY_VALUE = Statement(
    sa.insert(t.values).from_select(
        ["tenant", "session_id", "name", "version", "content"],
        sa.select(V.tenant, p("new_id", V.session_id.type), V.name, sa.literal_column("1"), V.content).where(
            of_key(t.values), V.name == p("name")
        ),
    )
)


def _copy_state(row: Row, source: Row, new: Row) -> Recipe:
    """Copy what the source's state says, and the entries and pieces that it says it with."""
    of = bound({**own_key(row), "new_id": new["session_id"]})
    documents = {name: source[name] for name in DOCUMENTS}
    if not _saved(source, documents):
        return
    entries: Row = {}
    if source["entries_from"] is not None:
        runs = runs_of(source)
        entries = columns_of(runs, source["next_entry"])
        for first, last in runs:
            yield _COPY_RUN, {**of, "p_first": first, "p_last": last}
    names = {name for column in ("context_pieces", "plan_pieces") for name in names_in(source[column])}
    if names:
        yield Many(_COPY_VALUE, [{**of, "p_name": name} for name in sorted(names)])
    if any(text is not None for text in documents.values()):
        yield insert(t.session_states, ("tenant", "session_id", *documents)), bound(own_key(new) | documents)
    yield from set_row(new, {"saved_at": new["created_at"], **entries})


def _saved(source: Row, documents: Row) -> bool:
    """Whether anything was saved: of a state its row says so, of a checkpoint only what it holds."""
    if source.get("saved_at") is not None:
        return True
    return source["entries_from"] is not None or any(text is not None for text in documents.values())
