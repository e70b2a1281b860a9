"""The dashboard on many sessions in PostgreSQL: how long its pages take, and what their queries read."""

import http.client
import statistics
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

import psycopg

from benchmarks import population
from benchmarks.bench import Bench, Section
from benchmarks.grid import Grid
from benchmarks.plans import Plan, plan_of
from benchmarks.serving import free_port, lifecycle_serve, running
from lifecycle.operations import requests as r
from lifecycle.operations.oversight import WHYS

SESSIONS: Final = 1_000_000
_TURNS: Final = 20
_BOUND_MS: Final = 200.0
# What one tenant's pages show, and everybody's.
_SCOPES: Final = {"one tenant": population.TENANT, "all tenants": "*"}
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

_HEAD: Final = """## Dashboard

Pages of a `lifecycle serve` on {sessions:,} sessions of one tenant and a twentieth as many of {others} others in PostgreSQL,
asked for {turns} times each over HTTP; the bound for the overview and the list is {bound:.0f} ms. Below, what the
statements of the pages read, as they are planned after many runs.
"""


@dataclass(frozen=True, slots=True)
class PageTime:
    """How long a page took, asked for again and again, in milliseconds."""

    page: str
    scope: str
    median_ms: float
    longest_ms: float


def section(bench: Bench) -> Section:
    """Each page, asked for by one tenant and by all of them."""
    sessions, turns = bench.pick(SESSIONS, 1000), bench.pick(_TURNS, 3)
    url = bench.populated(sessions)
    progress = bench.stage("dashboard", len(_SCOPES) * len(_PAGES))
    port = free_port()
    times = []
    with running(lifecycle_serve(url, port), port, bench.folder / "dashboard.log"):
        for scope, tenant in _SCOPES.items():
            for name, path in _PAGES.items():
                taken = [_ask(port, path, tenant) for _ in range(turns)]
                # The first one makes plans, templates and connections.
                times.append(PageTime(name, scope, statistics.median(taken[1:]), max(taken[1:])))
                progress()
    return _section(sessions, turns, times, _plans(url))


def _ask(port: int, path: str, tenant: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    began = time.perf_counter()
    connection.request("GET", path, headers={"Cookie": f"lifecycle_tenant={tenant}"})
    answer = connection.getresponse()
    body = answer.read()
    took = time.perf_counter() - began
    connection.close()
    assert answer.status == 200, body[-2000:]
    return took * 1000


def _plans(url: str) -> list[tuple[str, str, Plan]]:
    found = []
    with psycopg.connect(url) as connection:
        for scope, tenant in (("one tenant", population.TENANT), ("all tenants", None)):
            for name, request in _queries(tenant).items():
                found.append((name, scope, plan_of(connection, request)))
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


def _section(sessions: int, turns: int, times: list[PageTime], plans: list[tuple[str, str, Plan]]) -> Section:
    pages = Grid(
        ("page", "whose", "median (ms)", "longest (ms)"),
        [(one.page, one.scope, f"{one.median_ms:.1f}", f"{one.longest_ms:.1f}") for one in times],
        texts=2,
    )
    queries = Grid(
        ("query", "whose", "through", "rows read", "rows given"),
        [(name, scope, plan.through, f"{plan.rows_read:,}", f"{plan.rows_returned:,}") for name, scope, plan in plans],
        texts=3,
    )
    figures = {
        "sessions": sessions,
        "times": [asdict(one) for one in times],
        "plans": [{"query": name, "scope": scope} | asdict(plan) for name, scope, plan in plans],
    }
    head = _HEAD.format(sessions=sessions, others=population.OTHERS, turns=turns, bound=_BOUND_MS)
    text = f"{head}\n{pages.markdown()}\n{queries.markdown()}"
    return Section(figures, [pages.rich(), queries.rich()], text)
