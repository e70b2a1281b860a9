"""Sessions that come in numbers, on PostgreSQL: the statements of the hot requests, two a session, in one transaction.

All creations are sent at once, then all messages: a session's are added once it is known to be new.
"""

import sqlalchemy as sa

from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import Recipe
from lifecycle.recipes.postgresql import SINGLES
from lifecycle.recipes.statement import Several, Statement

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
    """Make them; one that exists is left alone, its messages too."""
    creations = [creation for creation, _ in request.items]
    found = yield Several([(_CREATE.statement(one), _CREATE.bind(one)) for one in creations])
    made = [_CREATE.read(one, rows) is not None for one, rows in zip(creations, found, strict=True)]
    additions = [added for (_, added), new in zip(request.items, made, strict=True) if new and added is not None]
    if additions:
        yield Several([(_ADD.statement(one), _ADD.bind(one)) for one in additions])
    # To a planner that takes the table for empty any index on the tenant is as good as the key, and the plan is kept
    # until autovacuum comes by, a minute later: by then an import has read the whole table for every row of it.
    (table,) = yield _KNOWN_ROWS, {}
    if table["known"] < _FEW:
        yield _COUNT_ROWS, {}
    return made
