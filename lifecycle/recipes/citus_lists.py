"""Lists over all tenants on Citus: each tenant's first rows, asked for one tenant after the other.

What PostgreSQL does in one statement (`postgresql_lists.py`) is refused across nodes. With few tenants a statement for
each, along its own index, costs less than reading whole tables; with more, tables are read.
"""

from operator import itemgetter
from typing import Final

import sqlalchemy as sa

from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.recipes import lists
from lifecycle.recipes.portable.base import Recipe, Row, p
from lifecycle.recipes.postgresql_lists import is_plain
from lifecycle.recipes.statement import Statement

MOST: Final = 16

S = t.sessions.c
_FIRST: Final = Statement(sa.select(sa.func.min(S.tenant).label("tenant")))
_NEXT: Final = Statement(sa.select(sa.func.min(S.tenant).label("tenant")).where(S.tenant > p("tenant")))
_ORDER: Final = itemgetter("listed_at", "updated_at", "session_id", "tenant")


def list_sessions(request: r.ListSessions) -> Recipe:
    """Read a page, and the total if asked for."""
    if not is_plain(request):
        return (yield from lists.list_sessions(request))
    tenants: list[str] = []
    found = yield _FIRST, {}
    while found[0]["tenant"] is not None:
        if len(tenants) == MOST:
            return (yield from lists.list_sessions(request))
        tenants.append(found[0]["tenant"])
        found = yield _NEXT, {"p_tenant": tenants[-1]}
    upto = request.limit + request.offset
    rows: list[Row] = []
    for tenant in tenants:
        own = r.ListSessions(tenant, request.filters, request.sort, request.descending, upto, 0, request.cursor, False)
        rows += (yield from lists.list_sessions(own))[0]
    rows.sort(key=_ORDER, reverse=request.descending)
    return rows[request.offset : upto + 1], None
