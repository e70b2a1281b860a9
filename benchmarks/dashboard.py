"""The dashboard on many sessions in PostgreSQL: how long its pages take, and what their queries read."""

import http.client
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
from rich.table import Table

from benchmarks.measure import Progress
from lifecycle import ALL, SessionManager
from lifecycle.operations import requests as r
from lifecycle.operations.oversight import WHYS
from tests.acceptance.screenshots import serving
from tests.plans import Work, work_of

SESSIONS: Final = 1_000_000
TENANTS: Final = 20
TURNS: Final = 20
BOUND_MS: Final = 200.0
# What one tenant's pages show, and everybody's.
_SCOPES: Final = {"one tenant": "t3", "all tenants": "*"}
_PAGES: Final = {
    "overview": "/dashboard/",
    "list": "/dashboard/sessions",
    "list, suspended": "/dashboard/sessions?state=suspended",
    "list, of a user": "/dashboard/sessions?user=user3",
    "list, of a kind and state": "/dashboard/sessions?kind=cron&state=expired",
    "list, a title searched": "/dashboard/sessions?q=ab12cd",
    "stuck": "/dashboard/stuck",
    "approvals": "/dashboard/approvals",
}

# Sessions of 30 days in every state, their deadlines ahead; some leased, some waiting, one in 50,000 rescued twice.
_FILL: Final = """
INSERT INTO sessions (tenant, session_id, kind, user_id, agent_id, title, title_folded, state, metadata, config, version,
  next_seq, message_count, created_at, updated_at, listed_at, last_active_at, idle_active, idle_suspended, expires_at,
  ended_at, prune_at, lease_holder, lease_expires_at, available_at, rescues)
SELECT 't' || i %% %(tenants)s, md5(i::text), (ARRAY['chat','chat','chat','cron','copilot'])[1 + i / 7 %% 5],
  'user' || i %% 20000, 'agent' || i %% 50, 'About ' || md5((i * 7)::text), 'about ' || md5((i * 7)::text), state, '{}',
  '{}', 1, 5, 3, at, at, date_trunc('minute', at), at, 86400, 2592000,
  CASE WHEN live THEN now() + (i %% 86400 + 3600) * interval '1 second' END, CASE WHEN NOT live THEN at END,
  CASE WHEN NOT live THEN now() + (i %% 86400 + 3600) * interval '1 second' END,
  CASE WHEN live AND i %% 200 = 0 THEN 'runner' || i %% 10 END,
  CASE WHEN live AND i %% 200 = 0 THEN now() + interval '1 hour' END,
  CASE WHEN state = 'active' AND i %% 300 = 1 THEN now() + interval '1 hour' END,
  CASE WHEN i %% 50000 = 0 THEN 3 ELSE 0 END
FROM (SELECT i, at, state, state IN ('active', 'suspended') AS live FROM (
  SELECT i, now() - (i::float8 / %(n)s) * interval '30 days' AS at,
    (ARRAY['active','active','suspended','completed','completed','completed','completed','ended','expired','expired'])
      [1 + i / 35 %% 10] AS state
  FROM generate_series(1, %(n)s) AS i) AS made) AS told
"""
_AUDIT: Final = """
INSERT INTO session_transitions (tenant, session_id, seq, trigger_name, to_state, version, txid, created_at)
SELECT 't' || i %% %(tenants)s, md5(i::text), 1, 'create', 'active', 1, 1, now() - (1 - i::float8 / %(n)s) * interval '30 days'
FROM generate_series(1, %(n)s) AS i
"""
_APPROVALS: Final = """
INSERT INTO session_approvals (tenant, session_id, approval_id, action, state, requested_at, expires_at)
SELECT 't' || i / 1000 %% %(tenants)s, md5(i::text), 'a', 'deploy', CASE WHEN i %% 1000 = 1 THEN 'pending' ELSE 'approved' END,
  now(), now() + interval '1 hour' FROM generate_series(1, %(n)s, 10) AS i
"""


# How many times `measure` reports progress.
PAGES: Final = len(_SCOPES) * len(_PAGES)


@dataclass(frozen=True, slots=True)
class PageTime:
    """How long a page took, asked for again and again, in milliseconds."""

    page: str
    scope: str
    median_ms: float
    longest_ms: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What a query of a page reads."""

    query: str
    scope: str
    rows_read: int
    rows_returned: int
    reads: str


@dataclass(frozen=True, slots=True)
class Measured:
    """All of it."""

    sessions: int
    times: list[PageTime]
    plans: list[Plan]


def fill(url: str, sessions: int) -> None:
    """Fill an empty database and have it analysed, as autovacuum would; its indexes are made behind the rows."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET maintenance_work_mem = '256MB'")
        with _without_indexes(connection, "sessions", "session_transitions"):
            for statement in (_FILL, _AUDIT, _APPROVALS):
                connection.execute(statement, {"n": sessions, "tenants": TENANTS}, prepare=False)
        connection.execute("VACUUM ANALYZE")
    with SessionManager.open(url, ALL) as manager:
        manager.take_sample()


@contextmanager
def _without_indexes(connection: psycopg.Connection[Any], *tables: str) -> Iterator[None]:
    found = connection.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = ANY(%s) AND indexname LIKE 'ix_%%'",
        (list(tables),),
    ).fetchall()
    for name, _ in found:
        connection.execute(f"DROP INDEX {name}".encode())
    yield
    for _, definition in found:
        connection.execute(definition.encode())


def measure(url: str, progress: Progress, sessions: int = SESSIONS, turns: int = TURNS) -> Measured:
    """Fill an empty database, and ask for each page again and again from a `lifecycle serve` of its own, by one tenant and by all of them."""
    fill(url, sessions)
    times = []
    with serving(url, "serve") as address:
        for scope, tenant in _SCOPES.items():
            for name, path in _PAGES.items():
                taken = [_ask(address, path, tenant) for _ in range(turns)]
                # The first one makes plans, templates and connections.
                times.append(PageTime(name, scope, statistics.median(taken[1:]), max(taken[1:])))
                progress()
    return Measured(sessions, times, _plans(url))


def _ask(address: str, path: str, tenant: str) -> float:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    began = time.perf_counter()
    connection.request("GET", path, headers={"Cookie": f"lifecycle_tenant={tenant}"})
    answer = connection.getresponse()
    body = answer.read()
    took = time.perf_counter() - began
    connection.close()
    assert answer.status == 200, body[-2000:]
    return took * 1000


def _plans(url: str) -> list[Plan]:
    found = []
    with psycopg.connect(url) as connection:
        for scope, tenant in (("one tenant", "t3"), ("all tenants", None)):
            for name, request in _queries(tenant).items():
                work, _ = work_of(connection, request)
                found.append(_plan(name, scope, work))
                connection.rollback()
    return found


def _queries(tenant: str | None) -> dict[str, r.Request]:
    def listing(**filters: Any) -> r.ListSessions:
        return r.ListSessions(tenant, filters, "updated_at", True, 25, 0, None, False)

    at = datetime.now(UTC)
    return {
        "list": listing(),
        "list, suspended": listing(state="suspended"),
        "list, of a user": listing(user_id="user3"),
        "latest transitions": r.RecentTransitions(tenant, None, 15),
        "approvals": r.ListApprovals(tenant, None, "pending", 100),
        **{f"stuck: {why}": r.ListStuck(tenant, why, 60, 100) for why in WHYS},
        "numbers": r.ReadSamples(tenant, ("active", "create"), at.replace(minute=0, second=0, microsecond=0)),
    }


def _plan(name: str, scope: str, work: Work) -> Plan:
    reads = [*sorted(work.indexes), *(f"all of {table}" for table in sorted(work.sequential))]
    return Plan(name, scope, round(work.rows_read), work.rows_returned, ", ".join(reads))


_HEAD: Final = """## Dashboard

Pages of a `lifecycle serve` on {sessions:,} sessions of {tenants} tenants in PostgreSQL, asked for {turns} times each over
HTTP (`benchmarks/dashboard.py`); the bound for the overview and the list is {bound:.0f} ms. Below, what the statements of the
pages read, as they are planned after many runs.
"""


def tables(measured: Measured) -> list[Table]:
    """The times and the plans, for a terminal."""
    times = Table("page", "whose", "median (ms)", "longest (ms)")
    for one in measured.times:
        times.add_row(one.page, one.scope, f"{one.median_ms:.1f}", f"{one.longest_ms:.1f}")
    plans = Table("query", "whose", "rows read", "rows given", "through")
    for plan in measured.plans:
        plans.add_row(plan.query, plan.scope, f"{plan.rows_read:,}", f"{plan.rows_returned:,}", plan.reads)
    for table in (times, plans):
        for column in table.columns[2:4]:
            column.justify = "right"
    return [times, plans]


def markdown(measured: Measured) -> str:
    """The section on the dashboard."""
    head = _HEAD.format(sessions=measured.sessions, tenants=TENANTS, turns=TURNS, bound=BOUND_MS)
    lines = [head, "| page | whose | median (ms) | longest (ms) |", "|---|---|---:|---:|"]
    lines += [f"| {one.page} | {one.scope} | {one.median_ms:.1f} | {one.longest_ms:.1f} |" for one in measured.times]
    lines += ["", "| query | whose | rows read | rows given | through |", "|---|---|---:|---:|---|"]
    lines += [
        f"| {plan.query} | {plan.scope} | {plan.rows_read:,} | {plan.rows_returned:,} | {plan.reads} |"
        for plan in measured.plans
    ]
    return "\n".join(lines) + "\n"
