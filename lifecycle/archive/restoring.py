"""Bringing a session back from the archive."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from lifecycle import deadlines, migrate, states
from lifecycle.archive.entry import Entry
from lifecycle.archive.store import Archive
from lifecycle.errors import SessionExists
from lifecycle.models import tables as t
from lifecycle.policies import Policies
from lifecycle.recipes.portable.base import NOW
from lifecycle.transfer.connections import connected
from lifecycle.transfer.format import Line
from lifecycle.transfer.rows import TABLES, Row, key
from lifecycle.transfer.target import Target, present

_ROWS: Final = 2000
_TRIGGER: Final = "restore"


def restore(url: str, archive: Archive, entry: Entry, policies: Policies, *, actor: str | None = None) -> Row:
    """Store a session of the archive again with all it owned, in one transaction: its row.

    It is as it was, but that its retention begins anew, it is not hidden, nobody holds it, and its history has a line
    on its return. It stays in the archive. Raises `SessionExists`, `InvalidFile` (it is not whole in its file),
    `SchemaOutdated`, `StorageUnavailable`.
    """
    with connected(url, writing=True) as connection:
        target = Target(connection, None)
        if present(connection, [entry.key], locking=True):
            raise SessionExists(entry.session_id)
        (clock,) = connection.all(NOW)
        lines = archive.lines(entry, schema=migrate.head())
        session = next(lines).row
        line = _come_back(session, clock["now"], policies, actor)
        target.insert(t.sessions, [session])
        _insert(target, lines)
        target.insert(t.transitions, [line])
        connection.commit()
    return session


def _insert(target: Target, lines: Iterator[Line]) -> None:
    waiting: list[Row] = []
    table = ""
    for line in lines:
        if waiting and (line.name != table or len(waiting) == _ROWS):
            target.insert(TABLES[table], waiting)
            waiting = []
        table = line.name
        waiting.append(line.row)
    if waiting:
        target.insert(TABLES[table], waiting)


def _come_back(session: Row, at: datetime, policies: Policies, actor: str | None) -> Row:
    """Change the row to what it is from now on; the line of the audit log on that."""
    # The number behind that of the line on its removal, which may still be there.
    seq = session["next_seq"] + 1
    ended = session["state"] in states.TERMINAL
    kept = policies.for_kind(session["kind"]).retention(session["state"]) if ended else None
    session |= {
        "next_seq": seq + 1,
        "prune_at": deadlines.later(at, kept) if ended else None,
        "ghost_at": None,
        "deleted_at": None,
        "lease_holder": None,
        "lease_expires_at": None,
        "lease_epoch": session["lease_epoch"] + 1,
    }
    tenant, session_id = key(session)
    values: dict[str, Any] = dict.fromkeys(column.name for column in t.transitions.c)
    return values | {
        "tenant": tenant, "session_id": session_id, "seq": seq, "trigger_name": _TRIGGER, "from_state": None,
        "to_state": session["state"], "actor": actor, "version": session["version"], "created_at": at,
    }  # fmt: skip
