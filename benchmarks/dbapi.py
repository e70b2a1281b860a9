"""The hot operations on SQLite and MariaDB, beside the few statements each takes by hand on a raw connection."""

import asyncio
import itertools
import uuid
from collections.abc import Callable
from typing import Any

from benchmarks.measure import AsyncPair, Pair, Progress, Result, compare, compare_async, warming
from benchmarks.ours import NAMES, our_calls
from benchmarks.payload import BATCH, CONTENT, PAGE, context
from benchmarks.stores.store import TEXT
from benchmarks.supply import HOLDER, TTL, Supply, supplies
from lifecycle import AsyncSessionManager, SessionManager

_numbers = itertools.count()


def _names(n: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(n)]


def _floor_calls(floor: Any, raw: Any, supply: Supply) -> dict[str, Any]:
    """`floor` is the module of the database's statements."""
    leases = [(lease.session_id, lease.epoch) for lease in supply.leases]

    # Whatever way we store a turn in, the least that has to be written is a row and the session's own.
    def add(turn: int) -> Any:
        return floor.add(raw, supply.of(turn), _names(1), TEXT)

    calls = (
        lambda _: floor.create(raw, f"c-{next(_numbers):012}-6f1c-7bb0-a1d2"),
        lambda i: floor.get(raw, supply.of(i)),
        lambda i: floor.save(raw, supply.of(i), i, context(i)),
        lambda i: floor.load(raw, supply.of(i)),
        add,
        add,
        lambda i: floor.add(raw, supply.of(i), _names(1), CONTENT),
        lambda i: floor.add(raw, supply.of(i), _names(BATCH), CONTENT),
        lambda i: floor.messages(raw, supply.to_read(i), PAGE),
        lambda i: floor.move(raw, supply.of(i), "suspend"),
        lambda i: floor.move(raw, supply.of(i), "resume"),
        lambda i: floor.touch(raw, supply.of(i)),
        lambda i: floor.beat(raw, [leases[i % len(leases)]], HOLDER, TTL),
        lambda _: floor.beat(raw, leases, HOLDER, TTL),
        lambda _: floor.claim(raw, supply.kind, HOLDER, TTL),
    )
    return {name: _told(call) for name, call in zip(NAMES, calls, strict=True)}


def _told(call: Callable[[int], Any]) -> Callable[[int], Any]:
    def run(turn: int) -> Any:
        answer = call(turn)
        assert answer, "the statement did nothing"
        return answer

    return run


def sync_results(setting: str, url: str, floor: Any, turns: int, progress: Progress, until: float) -> list[Result]:
    """The sync manager beside a connection in the same thread."""
    with supplies(url, "sync", turns + warming(turns)) as (theirs, ours), SessionManager.open(url) as manager:
        raw = floor.connect(url)
        calls = our_calls(manager, ours)
        pairs = [Pair(name, call, calls[name]) for name, call in _floor_calls(floor, raw, theirs).items()]
        results = compare(f"{setting}, sync", pairs, turns, progress, until)
        raw.close()
        return results


def async_results(setting: str, url: str, floor: Any, turns: int, progress: Progress, until: float) -> list[Result]:
    """The async manager beside the same connection, which blocks the event loop: the floor is the same as for sync."""

    async def measure(theirs: Supply, ours: Supply) -> list[Result]:
        raw = floor.connect(url)
        async with AsyncSessionManager.open(url) as manager:
            calls = our_calls(manager, ours)
            pairs = [
                AsyncPair(name, _awaitable(call), calls[name])
                for name, call in _floor_calls(floor, raw, theirs).items()
            ]
            results = await compare_async(f"{setting}, async", pairs, turns, progress, until)
        raw.close()
        return results

    with supplies(url, "async", turns + warming(turns)) as (theirs, ours):
        return asyncio.run(measure(theirs, ours))


def _awaitable(call: Any) -> Any:
    async def run(turn: int) -> Any:
        return call(turn)

    return run
