"""Sessions that come in numbers, made on any database: one commit for all of them."""

from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import LOCK_SHORT, Recipe, lock
from lifecycle.recipes.portable.messages import append_messages
from lifecycle.recipes.portable.sessions import create_session


def create_sessions(request: r.CreateSessions) -> Recipe:
    """Make one after the other; one that exists is left alone, its messages too."""
    made: list[bool] = []
    for creation, added in request.items:
        created = yield from create_session(creation)
        made.append(created is not None)
        if created is not None and added is not None:
            row = yield from lock(creation, LOCK_SHORT)
            yield from append_messages(row, added.messages, added.auto_title)
    return made
