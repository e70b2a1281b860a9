"""How a watch goes through the audit log: on PostgreSQL by transaction, on SQLite by id.

PostgreSQL numbers transactions as they begin to write, and they commit in any order. What lies below the oldest one
under way is settled: whatever commits later has a higher number. So only that is read, and nothing is passed over.
(M. Kleppmann, "Designing Data-Intensive Applications", 2017, chapter 11, on logs; PostgreSQL's manual, 9.27.9,
on snapshots.) SQLite has one writer, so there the order of ids is the order of commits, and no id is given twice.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.operations.places import Place, check_source
from lifecycle.recipes.portable.base import Recipe, Row, p
from lifecycle.recipes.statement import Single, Statement

T = t.transitions.c
_ID: Any = p("id", sa.BigInteger())
_POSITION: Any = p("position", sa.BigInteger())
_SNAPSHOT: Any = sa.literal_column("pg_current_snapshot()")


def page(position: Any, behind: tuple[Any, ...], tenant: bool, session: bool) -> Statement:
    """The next lines in order. Those of others count for the limit, and the last of the page comes even so.

    That bounds what one statement reads, and the next one goes on behind it.
    """
    columns = [column for column in T if column.name != "txid"]
    chosen = (
        sa.select(*columns, position.label("position"))
        .where(*behind)
        .order_by(*dict.fromkeys((position, T.id)))
        .limit(p("limit", sa.Integer()))
    )
    if not tenant and not session:
        return Statement(chosen)
    seen = chosen.cte("seen")
    wanted: list[Any] = []
    if tenant:
        wanted.append(seen.c.tenant == p("tenant"))
    if session:
        wanted.append(seen.c.session_id == p("session_id"))
    backwards = (seen.c.position.desc(), seen.c.id.desc())
    last = sa.select(seen.c.id).order_by(*backwards).limit(sa.literal_column("1")).scalar_subquery()
    count = sa.select(sa.func.count()).select_from(seen).scalar_subquery().label("seen")
    return Statement(
        sa.select(*seen.c, count)
        .where(sa.or_(sa.and_(*wanted), seen.c.id == last))
        .order_by(seen.c.position, seen.c.id)
    )


def chooser(position: Any, *behind: Any) -> Callable[[r.ReadTransitions], Statement]:
    """Which of the four pages meets a request: of one tenant or all, of one session or all."""

    @cache
    def choose(tenant: bool, session: bool) -> Statement:
        return page(position, behind, tenant, session)

    return lambda request: choose(request.tenant is not None, request.session_id is not None)


def bind(request: r.ReadTransitions) -> Row:
    """The values of a page."""
    return {
        "p_position": request.after.position,
        "p_id": request.after.id,
        "p_limit": request.limit,
        "p_tenant": request.tenant,
        "p_session_id": request.session_id,
    }


def read(request: r.ReadTransitions, rows: list[Row]) -> tuple[list[Row], tuple[int, int] | None, bool]:
    """The lines that are wanted, where the last one looked at stands, and whether the page was full."""
    if not rows:
        return [], None, False
    last = rows[-1]
    wanted = [
        row
        for row in rows
        if (request.tenant is None or row["tenant"] == request.tenant)
        and (request.session_id is None or row["session_id"] == request.session_id)
    ]
    return wanted, (last["position"], last["id"]), last.get("seen", len(rows)) >= request.limit


BY_ID = (T.id > _ID,)
_BY_ID = chooser(T.id, *BY_ID)
_LAST_ID = Statement(
    sa.select(sa.column("seq", sa.BigInteger()))
    .select_from(sa.table("sqlite_sequence"))
    .where(sa.column("name") == sa.literal_column(f"'{t.transitions.name}'"))
)


def start_watch(request: r.StartWatch) -> Recipe:
    """Behind the last id that was ever given, or at a place that was reached."""
    found = yield _LAST_ID, {}
    last = found[0]["seq"] if found else 0
    return Place("sqlite", last, last) if request.after is None else check_source(request.after, "sqlite", last)


def read_transitions(request: r.ReadTransitions) -> Recipe:
    """A page by id."""
    return read(request, (yield _BY_ID(request), bind(request)))


class horizon(FunctionElement[int]):  # noqa: N801 - reads as the SQL function it is
    """The oldest transaction under way."""

    type = sa.BigInteger()
    inherit_cache = True
    name = "horizon"


@compiles(horizon, "postgresql")
def _horizon_postgresql(_element: horizon, _compiler: Any, **_: Any) -> str:
    return "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"


SETTLED = (sa.tuple_(T.txid, T.id) > sa.tuple_(_POSITION, _ID), T.txid < horizon())
_BY_TRANSACTION = chooser(T.txid, *SETTLED)
_LOOK = Statement(sa.select(sa.cast(_SNAPSHOT, sa.Text()).label("snapshot")))


def _start(request: r.StartWatch, rows: list[Row]) -> Place:
    """At the oldest transaction under way, remembering which of the later ones are over; or at a place reached."""
    lowest, next_one, under_way = rows[0]["snapshot"].split(":")
    first, furthest = int(lowest), int(next_one)
    if request.after is not None:
        return check_source(request.after, "postgresql", furthest)
    running = tuple(int(number) for number in under_way.split(",")) if under_way else ()
    return Place("postgresql", first, 0, (furthest, *running) if first < furthest else ())


SINGLES: dict[type[r.Request], Single] = {
    r.StartWatch: Single(lambda _: _LOOK, lambda _: {}, _start),
    r.ReadTransitions: Single(_BY_TRANSACTION, bind, read),
}
