"""Creating, reading, changing and removing sessions on any database."""

from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa

from lifecycle import deadlines, states
from lifecycle.errors import SessionBusy, SessionProtected
from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.recipes.archiving import removing
from lifecycle.recipes.portable.base import (
    LOCK,
    NOW,
    Recipe,
    Row,
    active_now,
    audit_row,
    bound,
    changed_now,
    insert,
    key,
    leased,
    lock,
    of_key,
    own_key,
    p,
    set_row,
)
from lifecycle.recipes.portable.moves import seconds_for
from lifecycle.recipes.portable.saving import document_columns, store_entries, store_values
from lifecycle.recipes.portable.together import Key, among, by_tenant, of_these
from lifecycle.recipes.statement import Many, Statement

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
        "rescues": 0,
        "pending_approvals": 0,
        "saved_at": at if request.saved else None,
        "next_entry": 1,
        "checkpoint_version": 0,
        "checkpoint_entry": 1,
    }
    if request.conversation is not None:
        row |= {"entries_from": 1, "next_entry": 1 + len(request.conversation.texts)}
    taken = yield _TAKEN, key(request)
    if taken:
        return None
    yield insert(t.sessions, tuple(row)), bound(row)
    yield audit_row(row | {"now": at}, 1, "create", None, states.INITIAL, 1, actor=request.actor)
    if request.documents:
        columns = document_columns(request.documents)
        yield insert(t.session_states, ("tenant", "session_id", *columns)), bound(own_key(row) | columns)
        yield from store_values(row, request.documents, 1)
    if request.conversation is not None:
        yield from store_entries(row, request.conversation, 1)
    return {column.name: None for column in t.sessions.c} | row


def update_session(request: r.UpdateSession) -> Recipe:
    """Set columns; the version grows."""
    row = yield from lock(request)
    if row is None or (request.expected is not None and row["version"] != request.expected):
        return None
    yield from set_row(row, {**request.values, "version": row["version"] + 1, **changed_now(row)})
    if request.restamp and row["state"] in states.LIVE:
        idle = row["idle_active"] if row["state"] == "active" else row["idle_suspended"]
        yield from set_row(row, {"expires_at": deadlines.expiry(row["now"], idle, row["max_age_at"])})
    return row


_CHILD_KEYS = Statement(
    sa.select(t.sessions.c.session_id).where(
        t.sessions.c.tenant == p("tenant"), t.sessions.c.parent_id == p("session_id")
    ).order_by(t.sessions.c.session_id)
)  # fmt: skip


_OWNED = (*t.CHILDREN, t.transitions, t.sessions)
DROPS = tuple(Statement(sa.delete(table).where(of_key(table))) for table in _OWNED)
# Of so many sessions on it pays to ask first what they have.
_MANY = 20


def delete_sessions(request: r.DeleteSessions) -> Recipe:
    """Lock, check, then remove children and sessions by key, leaving a tombstone each."""
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
        if not request.force and leased(row):
            raise SessionBusy(row["session_id"], row["lease_holder"], row["lease_expires_at"])
    yield from drop(found, request)
    return len(found)


def drop(found: list[Row], request: Any) -> Recipe:
    """Remove locked sessions with all they own, behind writing them to the archive if there is one."""
    if found:
        yield from removing(found, request, lambda: _drop(found, request))


def _drop(found: list[Row], request: Any) -> Recipe:
    keys = [(row["tenant"], row["session_id"]) for row in found]
    owners = yield from _owners(keys)
    # By key, one after the other: MariaDB may look for several in all of a small table, and wait there for others' locks.
    for table, statement in zip(_OWNED, DROPS, strict=True):
        own = keys if owners is None or table not in owners else owners[table]
        if own:
            yield Many(statement, [{"p_tenant": tenant, "p_session_id": session_id} for tenant, session_id in own])
    tombs = [
        audit_row(
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


def _owners(keys: list[Key]) -> Recipe:
    """Of many locked sessions, for each table of children those that have rows in it; None where it is not asked."""
    if len(keys) < _MANY:
        return None
    owners: dict[sa.Table, list[Key]] = {table: [] for table in t.CHILDREN}
    for tenant, ids in by_tenant(keys):
        size, values = among(tenant, ids)
        for row in (yield _owning(size), values):
            for table, own in owners.items():
                if row[table.name]:
                    own.append((tenant, row["session_id"]))
    return owners


@cache
def _owning(size: int) -> Statement:
    columns = t.sessions.c

    def has(table: sa.Table) -> Any:
        own = table.c.tenant == columns.tenant, table.c.session_id == columns.session_id
        return sa.exists(sa.select(sa.literal_column("1")).where(*own)).label(table.name)

    return Statement(sa.select(columns.session_id, *map(has, t.CHILDREN)).where(*of_these(size)))


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
        if not request.force and row["protected"]:
            raise SessionProtected(row["session_id"])
        if not request.force and leased(row):
            raise SessionBusy(row["session_id"], row["lease_holder"], row["lease_expires_at"])
        prune_at = deadlines.later(row["now"], retention)
    else:
        prune_at = None if row["ended_at"] is None else deadlines.later(row["ended_at"], retention)
    seq = row["next_seq"]
    values = {
        "deleted_at": row["now"] if request.hide else None,
        "prune_at": prune_at,
        "version": row["version"] + 1,
        "next_seq": seq + 1,
        **changed_now(row),
    }
    if not request.hide and row["state"] in states.LIVE:
        values |= active_now(row)
    yield from set_row(row, values)
    trigger = "soft_delete" if request.hide else "undelete"
    yield audit_row(row, seq, trigger, row["state"], row["state"], row["version"], actor=request.actor)
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
