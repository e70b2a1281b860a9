"""Pages of sessions on MariaDB, out of the index of their filter.

The index has the minute in which a session was written last, and a page is ordered by the exact time. Other databases
sort minute by minute as they read; MariaDB would read and sort all sessions of the filter. So it is asked first which
minute the page's last row is of, then for the page among those that are not beyond it. Both see one snapshot.
"""

from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from lifecycle.models import tables as t
from lifecycle.models.types import Timestamp
from lifecycle.operations import requests as r
from lifecycle.recipes import lists
from lifecycle.recipes.portable.base import Recipe, bound, p
from lifecycle.recipes.statement import Statement

_LISTED = t.sessions.c.listed_at
# Each is in the order of a page; of those of its filters MariaDB takes the one that has the fewest.
_INDEXES: Final = {
    "user_id": "ix_sessions_user",
    "agent_id": "ix_sessions_agent",
    "state": "ix_sessions_state",
    "kind": "ix_sessions_kind",
}
# What reads more than a page's rows in any case, or few.
_OTHERWISE: Final = frozenset({"search", "metadata", "parent_id"})


def list_sessions(request: r.ListSessions) -> Recipe:
    """Read a page, and the total if asked for."""
    names = frozenset(request.filters)
    indexed = request.tenant is not None and request.sort == "updated_at" and request.where is None
    if not indexed or names & _OTHERWISE:
        return (yield from lists.list_sessions(request))
    names -= {"search_messages"}
    shape = (names, 0, True, "updated_at", request.descending, request.cursor is not None)
    values = lists.values_of(request)
    edge = yield _edge_statement(*shape), bound(values | {"last": request.offset + request.limit})
    if edge:
        found = yield _page_statement(*shape), bound(values | {"edge": edge[0]["listed_at"]})
    else:
        found = yield lists.page_statement(*shape), bound(values)
    if not request.count:
        return found, None
    (counted,) = yield lists.count_statement(names, 0, True), bound(values)
    return found, counted["total"]


def _page(shape: tuple[Any, ...], where: Any) -> sa.Select[Any]:
    names, metadata, tenant, sort, descending, cursor = shape
    indexes = [index for name, index in _INDEXES.items() if name in names] or ["ix_sessions_listed"]
    chosen = lists.page(names, metadata, tenant, sort, descending, cursor, where)
    return chosen.with_hint(t.sessions, f"FORCE INDEX ({', '.join(indexes)})", "mysql")


@cache
def _edge_statement(*shape: Any) -> Statement:
    """The minute that the last row of the page and the one row more are of; none where there are fewer."""
    *_, descending, _ = shape
    order = _LISTED.desc() if descending else _LISTED.asc()
    chosen = _page(shape, None).with_only_columns(_LISTED).order_by(None).order_by(order)
    return Statement(chosen.limit(sa.literal_column("1", sa.Integer())).offset(p("last", sa.Integer())))


@cache
def _page_statement(*shape: Any) -> Statement:
    *_, descending, _ = shape
    edge = p("edge", Timestamp())
    return Statement(_page(shape, edge <= _LISTED if descending else edge >= _LISTED))
