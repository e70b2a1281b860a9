"""What row-level security costs: each call as the tables' owner, and as a role under it, on one database."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import psycopg
import sqlalchemy as sa

from benchmarks.bench import Bench, Section
from benchmarks.grid import Grid
from benchmarks.measure import AsyncPair, Pair, Result, compare, compare_async
from benchmarks.payload import CONTEXT
from lifecycle import AsyncSessionManager, SessionManager, Settings, row_security

_STAGES: Final = 3
ROLE: Final = "benchmark_api"
TENANT: Final = "acme"
_SESSIONS: Final = 100
# Of each of two tenants.
_TITLES: Final = 50_000
_AT_ONCE, _SAVES = 8, 200
_MOST_TURNS: Final = 300
_SECONDS: Final = 8.0

_FILL: Final = """
INSERT INTO sessions (tenant, session_id, kind, title, title_folded, state, metadata, config, version, next_seq, created_at,
  updated_at, listed_at, last_active_at)
SELECT tenant, 'filled-' || i, 'chat', 'case ' || md5(i::text), 'case ' || md5(i::text), 'active', '{}', '{}', 1, 2, at, at,
  date_trunc('minute', at), at
FROM generate_series(1, %(n)s) AS i, (VALUES ('acme'), ('other')) AS t (tenant),
  LATERAL (SELECT now() - i * interval '1 minute') AS times (at)
"""
_HEAD: Final = """## Row-level security

Each call as the tables' owner, for whom the policies do not hold, and as a role under them, whose statements take the
tenant along in the same round trip (`benchmarks/row_security.py`). The search is for a title among 100,000 of two tenants.
Under the policies concurrent writes are committed one by one, each for its tenant, and not in groups: the last row is
what a save takes of the time in which 8 tasks save without a pause.
"""


def section(bench: Bench) -> Section:
    """Medians off and on."""
    with bench.postgresql("row_security") as url:
        results = _measure(bench, url)
    grid = Grid(
        ("calls", "operation", "off (µs)", "on (µs)", "ratio"),
        [(one.setting, one.name, f"{one.floor_us:,.0f}", f"{one.ours_us:,.0f}", f"{one.ratio:.2f}") for one in results],
        texts=2,
    )
    figures = [one.figures() for one in results]
    return Section(figures, [grid.rich()], f"{_HEAD}\n{grid.markdown()}")


def _measure(bench: Bench, url: str) -> list[Result]:
    progress = bench.stage("row security", _STAGES)
    with psycopg.connect(url, autocommit=True) as raw:
        raw.execute(f"CREATE ROLE {ROLE} LOGIN")
        raw.execute(_FILL, {"n": bench.pick(_TITLES, 500)})
        raw.execute("VACUUM ANALYZE sessions")
    row_security.set_row_security(url, ROLE, True)
    under = sa.make_url(url).set(username=ROLE).render_as_string(hide_password=False)
    off = Settings(database={"url": url, "notify": False})
    on = Settings(database={"url": under, "notify": False, "row_security": True})
    turns = min(bench.turns, _MOST_TURNS)
    results = _sync(off, on, turns, bench.until(_SECONDS))
    progress()
    results += asyncio.run(_async(off, on, turns, bench.until(_SECONDS)))
    progress()
    results.append(asyncio.run(_together(off, on, bench.pick(_SAVES, 5))))
    progress()
    return results


def _sync(off: Settings, on: Settings, turns: int, until: float) -> list[Result]:
    with SessionManager.open(off, TENANT) as plain, SessionManager.open(on, TENANT) as secured:
        for i in range(_SESSIONS):
            plain.create_session(session_id=f"s-{i}")

        def pair(name: str, call: Callable[[SessionManager, int], object]) -> Pair:
            return Pair(name, lambda turn: call(plain, turn), lambda turn: call(secured, turn))

        pairs = [
            pair("get_session", lambda manager, turn: manager.get_session(f"s-{turn % _SESSIONS}")),
            pair("load_state", lambda manager, turn: manager.load_state(f"s-{turn % _SESSIONS}")),
            pair("save_state", lambda manager, turn: manager.save_state(f"s-{turn % _SESSIONS}", context=CONTEXT)),
            pair("add_message", lambda manager, turn: manager.add_message(f"s-{turn % _SESSIONS}", "user", "hello")),
            pair("list_sessions", lambda manager, _: manager.list_sessions(limit=20)),
            pair("search by title", lambda manager, _: manager.list_sessions(search="c4ca4238")),
        ]
        return compare("sync", pairs, turns, lambda: None, until)


async def _async(off: Settings, on: Settings, turns: int, until: float) -> list[Result]:
    async with AsyncSessionManager.open(off, TENANT) as plain, AsyncSessionManager.open(on, TENANT) as secured:
        pairs = [
            AsyncPair(
                "get_session",
                lambda turn: plain.get_session(f"s-{turn % _SESSIONS}"),
                lambda turn: secured.get_session(f"s-{turn % _SESSIONS}"),
            ),
            AsyncPair(
                "save_state",
                lambda turn: plain.save_state(f"s-{turn % _SESSIONS}", context=CONTEXT),
                lambda turn: secured.save_state(f"s-{turn % _SESSIONS}", context=CONTEXT),
            ),
        ]
        return await compare_async("async", pairs, turns, lambda: None, until)


async def _together(off: Settings, on: Settings, count: int) -> Result:
    async with AsyncSessionManager.open(off, TENANT) as plain, AsyncSessionManager.open(on, TENANT) as secured:

        async def saves(manager: AsyncSessionManager) -> float:
            async def one(task: int) -> None:
                for _ in range(count):
                    await manager.save_state(f"s-{task}", context=CONTEXT)

            began = time.perf_counter()
            await asyncio.gather(*(one(task) for task in range(_AT_ONCE)))
            return (time.perf_counter() - began) / (_AT_ONCE * count) * 1e6

        for manager in (plain, secured):
            await saves(manager)
        rounds = [(await saves(plain), await saves(secured)) for _ in range(3)]
        off_us, on_us = (min(side) for side in zip(*rounds, strict=True))
        return Result(f"async, {_AT_ONCE} at once", "save_state", off_us, on_us, count)
