"""What row-level security costs: each call as the tables' owner, and as a role under it, on one database."""

import asyncio
import time
from collections.abc import Callable, Sequence

import psycopg
import sqlalchemy as sa

from benchmarks.measure import AsyncPair, Pair, Result, compare, compare_async
from benchmarks.payload import CONTEXT
from lifecycle import AsyncSessionManager, SessionManager, Settings, row_security

STAGES = 3
ROLE = "benchmark_api"
TENANT = "acme"
_SESSIONS = 100
# Of each of two tenants.
_TITLES = 50_000
_AT_ONCE, _SAVES = 8, 200
_MOST_TURNS = 300

_FILL = """
INSERT INTO sessions (tenant, session_id, kind, title, title_folded, state, metadata, config, version, next_seq, created_at,
  updated_at, listed_at, last_active_at)
SELECT tenant, 'filled-' || i, 'chat', 'case ' || md5(i::text), 'case ' || md5(i::text), 'active', '{}', '{}', 1, 2, at, at,
  date_trunc('minute', at), at
FROM generate_series(1, %(n)s) AS i, (VALUES ('acme'), ('other')) AS t (tenant),
  LATERAL (SELECT now() - i * interval '1 minute') AS times (at)
"""
_HEAD = """## Row-level security

Each call as the tables' owner, for whom the policies do not hold, and as a role under them, whose statements take the
tenant along in the same round trip (`benchmarks/row_security.py`). The search is for a title among 100,000 of two tenants.
Under the policies concurrent writes are committed one by one, each for its tenant, and not in groups: the last row is
what a save takes of the time in which 8 tasks save without a pause.
"""


def measure(url: str, turns: int, progress: Callable[[], None]) -> list[Result]:
    """Medians off and on; `progress` once for each of `STAGES`."""
    with psycopg.connect(url, autocommit=True) as raw:
        raw.execute(f"CREATE ROLE {ROLE} LOGIN")
        raw.execute(_FILL, {"n": _TITLES})
        raw.execute("VACUUM ANALYZE sessions")
    row_security.set_row_security(url, ROLE, True)
    under = sa.make_url(url).set(username=ROLE).render_as_string(hide_password=False)
    off = Settings(database={"url": url, "notify": False})
    on = Settings(database={"url": under, "notify": False, "row_security": True})
    turns = min(turns, _MOST_TURNS)
    results = _sync(off, on, turns)
    progress()
    results += asyncio.run(_async(off, on, turns))
    progress()
    results.append(asyncio.run(_together(off, on)))
    progress()
    return results


def _sync(off: Settings, on: Settings, turns: int) -> list[Result]:
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
        return compare("sync", pairs, turns, lambda: None)


async def _async(off: Settings, on: Settings, turns: int) -> list[Result]:
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
        return await compare_async("async", pairs, turns, lambda: None)


async def _together(off: Settings, on: Settings) -> Result:
    async with AsyncSessionManager.open(off, TENANT) as plain, AsyncSessionManager.open(on, TENANT) as secured:

        async def saves(manager: AsyncSessionManager) -> float:
            async def one(task: int) -> None:
                for _ in range(_SAVES):
                    await manager.save_state(f"s-{task}", context=CONTEXT)

            began = time.perf_counter()
            await asyncio.gather(*(one(task) for task in range(_AT_ONCE)))
            return (time.perf_counter() - began) / (_AT_ONCE * _SAVES) * 1e6

        for manager in (plain, secured):
            await saves(manager)
        rounds = [(await saves(plain), await saves(secured)) for _ in range(3)]
        off_us, on_us = (min(side) for side in zip(*rounds, strict=True))
        return Result(f"async, {_AT_ONCE} at once", "save_state", off_us, on_us, _SAVES)


def markdown(results: Sequence[Result]) -> str:
    """The section of the page."""
    lines = [_HEAD, "| calls | operation | off (µs) | on (µs) | ratio |", "|---|---|---:|---:|---:|"]
    lines += [
        f"| {one.setting} | {one.name} | {one.floor_us:,.0f} | {one.ours_us:,.0f} | {one.ratio:.2f} |"
        for one in results
    ]
    return "\n".join(lines) + "\n"
