"""Whole sessions: statements that read all that belongs to some of them, in the order of a transfer's lines."""

from functools import cache
from typing import Any

import sqlalchemy as sa

from lifecycle.models import tables as t
from lifecycle.recipes.portable.base import p
from lifecycle.recipes.statement import Statement
from lifecycle.transfer.rows import Row, columns, order

_SIZES = (1, 16, 128, 1024)
MOST = _SIZES[-1]


@cache
def _of_sessions(table: sa.Table, size: int, paged: bool) -> Statement:
    ids: list[Any] = [p(f"id_{i}", table.c.session_id.type) for i in range(size)]
    by = order(table)
    chosen = sa.select(*columns(table)).where(table.c.tenant == p("tenant"), table.c.session_id.in_(ids)).order_by(*by)
    if paged:
        behind: Any = table.c.session_id > p("after_session")
        if len(by) > 2:  # noqa: PLR2004 -- it has a column beside the session's key
            same = table.c.session_id == p("after_session")
            behind = sa.or_(behind, sa.and_(same, by[2] > p("after", by[2].type)))
        chosen = chosen.where(behind).limit(p("limit", sa.Integer()))
    return Statement(chosen)


def of_sessions(table: sa.Table, tenant: str, ids: list[str]) -> tuple[Statement, Row]:
    """The rows of a table that belong to at most `MOST` sessions of one tenant, in order."""
    size = next(size for size in _SIZES if size >= len(ids))
    return _of_sessions(table, size, False), {"p_tenant": tenant, **_padded(ids, size)}


def page_of(table: sa.Table, tenant: str, ids: list[str], last: Row | None, limit: int) -> tuple[Statement, Row]:
    """At most `limit` of those rows, behind the last one that was read."""
    size = next(size for size in _SIZES if size >= len(ids))
    values = {"p_tenant": tenant, "p_limit": limit, **_padded(ids, size)}
    by = order(table)
    # No session has an empty id, so the first page begins before all of them.
    values["p_after_session"] = "" if last is None else last["session_id"]
    if len(by) > 2:  # noqa: PLR2004 -- as above
        least: Any = 0 if isinstance(by[2].type, sa.Integer) else ""
        values["p_after"] = least if last is None else last[by[2].name]
    return _of_sessions(table, size, True), values


def _padded(ids: list[str], size: int) -> Row:
    """So many parameters: each number of them would be another statement."""
    return {f"p_id_{i}": ids[min(i, len(ids) - 1)] for i in range(size)}


# Tombstones: the last line about a session that was removed, where it was not made again since.
TOMBSTONES = Statement(
    sa.select(*columns(t.transitions))
    .where(
        sa.text("session_transitions.to_state IS NULL"),
        ~sa.select(1)
        .where(t.sessions.c.tenant == t.transitions.c.tenant, t.sessions.c.session_id == t.transitions.c.session_id)
        .exists(),
    )
    .order_by(*order(t.transitions))
)
LAST_TRANSITION = Statement(sa.select(sa.func.coalesce(sa.func.max(t.transitions.c.id), 0).label("last")))
