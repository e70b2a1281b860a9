"""Sessions that come in numbers, on PostgreSQL: the statements of the hot requests, two a session, in one transaction."""

import sqlalchemy as sa

from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import Recipe
from lifecycle.recipes.postgresql import SINGLES
from lifecycle.recipes.statement import Statement

_CREATE = SINGLES[r.CreateSession]
_ADD = SINGLES[r.AddMessages]
_FEW = 1000
_NAME = t.sessions.name
_KNOWN_ROWS = Statement(
    sa.select(sa.literal_column("reltuples").label("known"))
    .select_from(sa.text("pg_class"))
    .where(sa.literal_column(f"oid = '{_NAME}'::regclass"))
)
_COUNT_ROWS = Statement(sa.text(f"ANALYZE {_NAME}"))


def create_sessions(request: r.CreateSessions) -> Recipe:
    """Make one after the other; one that exists is left alone, its messages too."""
    made: list[bool] = []
    for creation, added in request.items:
        found = yield _CREATE.statement(creation), _CREATE.bind(creation)
        created = _CREATE.read(creation, found)
        made.append(created is not None)
        if created is not None and added is not None:
            yield _ADD.statement(added), _ADD.bind(added)
    # To a planner that takes the table for empty any index on the tenant is as good as the key, and the plan is kept
    # until autovacuum comes by, a minute later: by then an import has read the whole table for every row of it.
    (table,) = yield _KNOWN_ROWS, {}
    if table["known"] < _FEW:
        yield _COUNT_ROWS, {}
    return made
