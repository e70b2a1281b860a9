"""Removing all messages of a session, on any database."""

import sqlalchemy as sa

from lifecycle import states
from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import (
    LOCK_SHORT,
    Recipe,
    active_now,
    barred,
    changed_now,
    key,
    lock,
    of_key,
    set_row,
)
from lifecycle.recipes.statement import Statement

_CLEAR = Statement(sa.delete(t.messages).where(of_key(t.messages)))


def clear_messages(request: r.ClearMessages) -> Recipe:
    """Lock the session, remove what it has: a message that is added meanwhile waits, and stays."""
    row = yield from lock(request, LOCK_SHORT)
    if row is None or row["state"] not in states.LIVE or barred(row, request.fence):
        return None
    removed = yield _CLEAR, key(request)
    if removed:
        yield from set_row(row, {"message_count": 0, **changed_now(row), **active_now(row)})
    return removed
