"""Each hot operation on PostgreSQL, sync and async, beside one hand-written statement on a raw connection."""

import itertools
import uuid
from typing import Any

import psycopg

from benchmarks import floor_postgresql as floor
from benchmarks.measure import AsyncPair, Pair, Progress, Result, compare, compare_async
from benchmarks.ours import our_calls, sessions
from benchmarks.payload import BATCH, CONTENT, SESSIONS, context
from lifecycle import AsyncSessionManager, SessionManager

_numbers = itertools.count()


def _name(prefix: str) -> str:
    return f"{prefix}-{next(_numbers):012}-6f1c-7bb0-a1d2"


def _names(n: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(n)]


def _as_it_is(row: Any) -> Any:
    return row


def _floor_calls(run: Any, ids: list[str]) -> dict[str, Any]:
    """`run` takes a statement, its parameters, and what is done with the row."""

    def of(turn: int) -> str:
        return ids[turn % SESSIONS]

    return {
        "create_session": lambda _: run(*floor.create(_name("c")), _as_it_is),
        "get_session": lambda i: run(floor.GET, {"id": of(i)}, floor.read_session),
        "save_state": lambda i: run(*floor.save(of(i), i, context(i)), _as_it_is),
        "load_state": lambda i: run(floor.LOAD, {"id": of(i)}, floor.read_state),
        "add_message": lambda i: run(*floor.add(of(i), str(uuid.uuid4()), CONTENT), _as_it_is),
        f"add_messages ({BATCH})": lambda i: run(*floor.add_many(of(i), _names(BATCH), CONTENT), _as_it_is),
        "suspend_session": lambda i: run(*floor.move(of(i), "suspend"), _as_it_is),
        "resume_session": lambda i: run(*floor.move(of(i), "resume"), _as_it_is),
        "touch_session": lambda i: run(floor.TOUCH, {"id": of(i)}, _as_it_is),
    }


def sync_results(url: str, turns: int, progress: Progress) -> list[Result]:
    """The sync manager beside a sync connection."""
    with SessionManager.open(url) as manager, psycopg.connect(url, autocommit=True) as raw:

        def run(statement: str, parameters: dict[str, Any], read: Any) -> Any:
            return read(raw.execute(statement, parameters, prepare=True).fetchone())

        theirs, ours = sessions(manager, "sync-floor"), sessions(manager, "sync-ours")
        calls = our_calls(manager, ours)
        pairs = [Pair(name, call, calls[name]) for name, call in _floor_calls(run, theirs).items()]
        return compare("PostgreSQL, sync", pairs, turns, progress)


async def async_results(url: str, turns: int, progress: Progress) -> list[Result]:
    """The async manager beside an async connection."""
    with SessionManager.open(url) as setter:
        theirs, ours = sessions(setter, "async-floor"), sessions(setter, "async-ours")
    raw = await psycopg.AsyncConnection.connect(url, autocommit=True)
    async with AsyncSessionManager.open(url) as manager, raw:

        async def run(statement: str, parameters: dict[str, Any], read: Any) -> Any:
            return read(await (await raw.execute(statement, parameters, prepare=True)).fetchone())

        calls = our_calls(manager, ours)
        pairs = [AsyncPair(name, call, calls[name]) for name, call in _floor_calls(run, theirs).items()]
        return await compare_async("PostgreSQL, async", pairs, turns, progress)
