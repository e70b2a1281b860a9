"""Reads by key: one statement on every database, and no transaction where that is the database's own rule."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from lifecycle.models import tables as t
from lifecycle.models.reads import Session
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import TOKEN, Recipe, key, of_key
from lifecycle.recipes.statement import Single, Statement

# What a session is read back as; the rest of the row is ours alone.
FIELDS = [t.sessions.c[name] for name in Session.model_fields]

_GET_ANY = Statement(sa.select(*FIELDS).where(of_key(t.sessions)))
_GET = Statement(sa.select(*FIELDS).where(of_key(t.sessions), t.sessions.c.deleted_at.is_(None)))


def first(_request: Any, rows: list[dict[str, Any]]) -> Any:
    """The one row, or None."""
    return rows[0] if rows else None


def _token(_request: Any, rows: list[dict[str, Any]]) -> Any:
    return (rows[0]["digest"], rows[0]["version"]) if rows else None


READS: dict[type[r.Request], Single] = {
    r.GetSession: Single(lambda request: _GET_ANY if request.deleted else _GET, key, first),
    r.GetToken: Single(lambda _: TOKEN, lambda request: key(request) | {"p_token": request.token}, _token),
}


def recipe(single: Single) -> Callable[[Any], Recipe]:
    """The read as a recipe, for where each request has a transaction of its own."""

    def read(request: Any) -> Recipe:
        found = yield single.statement(request), single.bind(request)
        return single.read(request, found)

    return read
