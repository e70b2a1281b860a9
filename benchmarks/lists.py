"""Lists and searches among many sessions: how long they take, how much they read, and through what."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import psycopg
import sqlalchemy as sa

from benchmarks import population
from benchmarks.bench import Bench, Section
from benchmarks.charts import Chart
from benchmarks.dashboard import SESSIONS as MANY
from benchmarks.grid import Grid
from benchmarks.plans import Plan, plan_of
from lifecycle import SessionManager
from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from tests.populations import connected
from tests.servers import ServerUnavailable

# Other databases than PostgreSQL are filled row by row, which takes its time.
_SIZES: Final[Mapping[str, Sequence[int]]] = {
    "PostgreSQL": (10_000, 100_000, MANY),
    "SQLite": (10_000, 100_000),
    "MariaDB": (10_000, 100_000),
}
_TIMES, _SECONDS = 40, 1.5
_SETTLING: Final = 6
_PAGE: Final = 20
# In the titles of some two dozen among a million sessions.
_SEARCHED: Final = "ab12c"
_LIST, _SEARCH = "list page", "title search"

_HEAD: Final = """## Lists and searches

`list_sessions` for a page of {page} of one tenant's sessions, newest first, without the total unless it says so. Medians
of {times} calls; on PostgreSQL with what the statements read, as they are planned after many runs (`EXPLAIN ANALYZE`). Some two
dozen titles among a million have what is searched for.
"""


@dataclass(frozen=True, slots=True)
class Listed:
    """One query among so many sessions: its median in milliseconds, and what it reads, where that can be told."""

    database: str
    sessions: int
    query: str
    median_ms: float
    plan: Plan | None


def _queries(newest: datetime) -> dict[str, dict[str, Any]]:
    """What is asked for, as keyword arguments; the sessions are of the thirty days before the newest."""
    return {
        _LIST: {},
        "list page, two weeks back": {"until": newest - timedelta(days=14)},
        "list page of a state": {"state": "suspended"},
        "list page of a kind and state": {"kind": "cron", "state": "expired"},
        "list page of a user": {"user_id": "user3"},
        _SEARCH: {"search": _SEARCHED},
        "list page with the total": {"count": True},
    }


def section(bench: Bench) -> Section:
    """Every query on every database there is, at every size."""
    found: list[Listed] = []
    left_out = []
    for database, sizes in _SIZES.items():
        try:
            for size in bench.pick(sizes, (1000,)):
                found += _measure(bench, database, size)
        except ServerUnavailable as reason:
            left_out.append(f"{database} left out: {reason}.\n")
    grid = Grid(
        ("database", "sessions", "query", "through", "median (ms)", "rows read"),
        [
            (
                one.database, f"{one.sessions:,}", one.query, one.plan.through if one.plan else "",
                f"{one.median_ms:.2f}", f"{one.plan.rows_read:,}" if one.plan else "",
            )
            for one in found
        ],
        texts=4,
    )  # fmt: skip
    head = _HEAD.format(page=_PAGE, times=bench.pick(_TIMES, 3))
    return Section(
        [asdict(one) for one in found],
        [grid.rich()],
        "\n".join((head, *left_out, grid.markdown())),
        asked=_asked(found),
        charts=[_chart([one for one in found if one.database == "PostgreSQL"])],
    )


def _measure(bench: Bench, database: str, size: int) -> list[Listed]:
    if database == "PostgreSQL":
        with nullcontext(bench.populated(size)) as url, psycopg.connect(url) as connection:
            return _timed(bench, database, size, url, lambda request: plan_of(connection, request))
    made = bench.sqlite if database == "SQLite" else bench.on_mariadb
    with made(f"lists_{size}") as url:
        _fill(url, size)
        return _timed(bench, database, size, url, lambda _: None)


def _timed(
    bench: Bench, database: str, size: int, url: str, planned: Callable[[r.Request], Plan | None]
) -> list[Listed]:
    found = []
    queries = _queries(datetime.now(UTC).replace(second=0, microsecond=0))
    progress = bench.stage(f"lists: {database}, {size:,} sessions", len(queries))
    with SessionManager.open(url, population.TENANT) as manager:
        for name, filters in queries.items():
            taken = _times(partial(manager.list_sessions, limit=_PAGE, **filters), bench)
            # That a total reads all there is need not be looked at.
            plan = None if filters.get("count") else planned(_request(**filters))
            found.append(Listed(database, size, name, statistics.median(taken) * 1000, plan))
            progress()
    return found


def _times(call: Callable[[], object], bench: Bench) -> list[float]:
    """How long it took again and again, but for the first calls, which settle what plan is used."""
    taken = []
    until = bench.until(_SECONDS)
    for _ in range(bench.pick(_TIMES, 3) + _SETTLING):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
        if time.monotonic() > until and len(taken) > 2:
            break
    return taken[min(_SETTLING, len(taken) // 2) :]


def _request(*, count: bool = False, **filters: Any) -> r.ListSessions:
    """What the manager asks of its driver."""
    if "search" in filters:
        filters["search_messages"] = False
    return r.ListSessions(population.TENANT, filters, "updated_at", True, _PAGE, 0, None, count)


def _fill(url: str, size: int) -> None:
    """As `population` fills PostgreSQL, one tenant only."""
    at = datetime.now(UTC)
    states = (
        "active",
        "active",
        "suspended",
        "completed",
        "completed",
        "completed",
        "completed",
        "ended",
        "expired",
        "expired",
    )
    with connected(url) as connection:
        for start in range(0, size, 1000):
            rows = [
                _row(number, at - timedelta(days=30) * (number / size), states) for number in range(start, start + 1000)
            ]
            connection.execute(sa.insert(t.sessions), rows)
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("ANALYZE")


def _row(number: int, at: datetime, states: Sequence[str]) -> dict[str, Any]:
    state = states[number // 35 % 10]
    live = state in {"active", "suspended"}
    title = f"About {number * 7 % 16_777_213:06x} {number * 11 % 16_777_213:06x}"
    return {
        "tenant": population.TENANT, "session_id": f"{number * 7919 % 1_000_003:07x}-{number:07}", "state": state,
        "kind": ("chat", "chat", "chat", "cron", "copilot")[number // 7 % 5], "user_id": f"user{number % 20000}",
        "agent_id": f"agent{number % 50}", "title": title, "title_folded": title.lower(), "metadata": "{}", "config": "{}",
        "version": 1, "next_seq": 5, "message_count": 3, "created_at": at, "updated_at": at,
        "listed_at": at.replace(second=0, microsecond=0), "last_active_at": at, "idle_active": 86_400,
        "idle_suspended": 2_592_000, "expires_at": at + timedelta(days=60) if live else None,
        "ended_at": None if live else at, "prune_at": None if live else at + timedelta(days=60),
    }  # fmt: skip


def _asked(found: Sequence[Listed]) -> dict[str, float]:
    by_query = {one.query: one.median_ms for one in found if one.database == "PostgreSQL" and one.sessions == MANY}
    return {name: by_query[query] for name, query in (("list", _LIST), ("search", _SEARCH)) if query in by_query}


def _chart(found: Sequence[Listed]) -> Chart:
    sizes = list(dict.fromkeys(one.sessions for one in found))
    queries = list(dict.fromkeys(one.query for one in found))
    taken = {(one.query, one.sessions): one.median_ms for one in found}
    series = {query: [taken[query, size] for size in sizes] for query in queries}
    labels = [f"{size:,}" for size in sizes]
    return Chart("lists", "Lists on PostgreSQL, by the number of sessions", labels, series, "milliseconds", lines=True)
