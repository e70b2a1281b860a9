"""The hot operations on PostgreSQL, beside one hand-written statement each on a raw connection."""

import itertools
import uuid
from typing import Any

import psycopg

from benchmarks import floor_postgresql as floor
from benchmarks.measure import AsyncPair, Pair, Progress, Result, compare, compare_async, warming
from benchmarks.ours import NAMES, our_calls
from benchmarks.payload import BATCH, CONTENT, PAGE, context
from benchmarks.stores.store import TEXT
from benchmarks.supply import HOLDER, TTL, Supply, supplies
from lifecycle import AsyncSessionManager, SessionManager

_numbers = itertools.count()


def _names(n: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(n)]


def _floor_calls(run: Any, supply: Supply) -> dict[str, Any]:
    """`run` takes a statement, its parameters, and what is done with its rows."""
    leases = supply.leases
    beats = {
        "ids": [lease.session_id for lease in leases],
        "epochs": [lease.epoch for lease in leases],
        "ttls": [TTL] * len(leases),
        "holder": HOLDER,
    }
    claim = {"kind": supply.kind, "holder": HOLDER, "ttl": TTL}

    def add(turn: int) -> Any:
        return run(*floor.add(supply.of(turn), str(uuid.uuid4()), TEXT), len)

    def beat(turn: int) -> Any:
        lease = supply.lease(turn)
        values = {"id": lease.session_id, "epoch": lease.epoch, "ttl": TTL, "holder": HOLDER}
        return run(floor.BEAT, values, len)

    calls = (
        lambda _: run(*floor.create(f"c-{next(_numbers):012}-6f1c-7bb0-a1d2"), len),
        lambda i: run(floor.GET, {"id": supply.of(i)}, floor.read_session),
        lambda i: run(*floor.save(supply.of(i), i, context(i)), len),
        lambda i: run(floor.LOAD, {"id": supply.of(i)}, floor.read_state),
        # Whatever way we store a turn in, the least that has to be written is a row and the session's own.
        add,
        add,
        lambda i: run(*floor.add(supply.of(i), str(uuid.uuid4()), CONTENT), len),
        lambda i: run(*floor.add_many(supply.of(i), _names(BATCH), CONTENT), len),
        lambda i: run(floor.MESSAGES, {"id": supply.to_read(i), "limit": PAGE}, floor.read_messages),
        lambda i: run(*floor.move(supply.of(i), "suspend"), len),
        lambda i: run(*floor.move(supply.of(i), "resume"), len),
        lambda i: run(floor.TOUCH, {"id": supply.of(i)}, len),
        beat,
        lambda _: run(floor.BEATS, beats, len),
        lambda _: run(floor.CLAIM, claim, floor.read_session),
    )
    return dict(zip(NAMES, calls, strict=True))


def sync_results(url: str, turns: int, progress: Progress, until: float) -> list[Result]:
    """The sync manager beside a sync connection."""
    with (
        supplies(url, "sync", turns + warming(turns)) as (theirs, ours),
        SessionManager.open(url) as manager,
        psycopg.connect(url, autocommit=True) as raw,
    ):

        def run(statement: str, parameters: dict[str, Any], read: Any) -> Any:
            return _told(read(raw.execute(statement, parameters, prepare=True).fetchall()))

        calls = our_calls(manager, ours)
        pairs = [Pair(name, call, calls[name]) for name, call in _floor_calls(run, theirs).items()]
        return compare("PostgreSQL, sync", pairs, turns, progress, until)


async def async_results(url: str, turns: int, progress: Progress, until: float) -> list[Result]:
    """The async manager beside an async connection."""
    raw = await psycopg.AsyncConnection.connect(url, autocommit=True)
    with supplies(url, "async", turns + warming(turns)) as (theirs, ours):
        async with AsyncSessionManager.open(url) as manager, raw:

            async def run(statement: str, parameters: dict[str, Any], read: Any) -> Any:
                return _told(read(await (await raw.execute(statement, parameters, prepare=True)).fetchall()))

            calls = our_calls(manager, ours)
            pairs = [AsyncPair(name, call, calls[name]) for name, call in _floor_calls(run, theirs).items()]
            return await compare_async("PostgreSQL, async", pairs, turns, progress, until)


def _told(answer: Any) -> Any:
    assert answer, "the statement did nothing"
    return answer
