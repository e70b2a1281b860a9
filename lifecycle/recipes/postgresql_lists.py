"""Lists over all tenants on PostgreSQL: each tenant's first rows along its own index, then the first of those.

Every index of the sessions leads with the tenant, so that a list of all of them in order would read the whole table. The
tenants are found by a loose index scan: one look into the index for each, as nothing enumerates them.
(PostgreSQL wiki, "Loose indexscan".)
"""

from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.recipes import lists
from lifecycle.recipes.portable.base import Recipe, bound, p
from lifecycle.recipes.statement import Statement

# Of more tenants each would be asked for a page of its own: reading the table costs less by then.
MOST: Final = 500

_TENANTS: Final = Statement(
    sa.text(
        "WITH RECURSIVE found AS ((SELECT tenant FROM sessions ORDER BY tenant LIMIT 1)"
        " UNION ALL SELECT (SELECT s.tenant FROM sessions AS s WHERE s.tenant > found.tenant ORDER BY s.tenant LIMIT 1)"
        " FROM found WHERE found.tenant IS NOT NULL)"
        f" SELECT tenant FROM found WHERE tenant IS NOT NULL LIMIT {MOST + 1}"
    ).columns(sa.column("tenant", sa.Text()))
)
_PLAIN: Final = frozenset({"user_id", "agent_id", "kind", "state", "parent_id", "since", "until"})


@cache
def _page(names: frozenset[str], descending: bool, cursor: bool) -> Statement:
    owners = sa.select(sa.func.unnest(p("tenants", ARRAY(sa.Text()))).label("tenant")).subquery("owners")
    own = lists.page(names, 0, False, "updated_at", descending, cursor, t.sessions.c.tenant == owners.c.tenant)
    found = own.offset(None).limit(p("upto", sa.Integer())).correlate(owners).lateral("found")
    order = [found.c[name] for name in ("listed_at", "updated_at", "session_id", "tenant")]
    return Statement(
        sa.select(*found.c)
        .select_from(owners.join(found, sa.true()))
        .order_by(*(column.desc() if descending else column.asc() for column in order))
        .limit(p("limit", sa.Integer()))
        .offset(p("offset", sa.Integer()))
    )


def is_plain(request: r.ListSessions) -> bool:
    """Whether each tenant's part of a list of all tenants is found along an index."""
    plain = request.filters.keys() <= _PLAIN and request.where is None and not request.count
    return request.tenant is None and request.sort == "updated_at" and plain


def list_sessions(request: r.ListSessions) -> Recipe:
    """Read a page, and the total if asked for."""
    if not is_plain(request):
        return (yield from lists.list_sessions(request))
    tenants = [row["tenant"] for row in (yield _TENANTS, {})]
    if len(tenants) > MOST:
        return (yield from lists.list_sessions(request))
    values: dict[str, Any] = dict(request.filters)
    values |= {"tenants": tenants, "limit": request.limit + 1, "offset": request.offset}
    values["upto"] = request.limit + 1 + request.offset
    if "since" in values:
        values["since_minute"] = values["since"].replace(second=0, microsecond=0)
    if request.cursor is not None:
        values |= dict(zip(("at_minute", "at", "at_tenant", "at_id"), request.cursor, strict=True))
    statement = _page(frozenset(request.filters), request.descending, request.cursor is not None)
    return (yield statement, bound(values)), None


def list_secured_sessions(request: r.ListSessions) -> Recipe:
    """The same under row-level security, where a search asks functions (`lifecycle.row_security`)."""
    if "search" in request.filters:
        return (yield from lists.list_sessions(request, secured=True))
    return (yield from list_sessions(request))
