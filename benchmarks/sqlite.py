"""Each hot operation on an SQLite file, sync and async, beside raw sqlite3."""

import itertools
import uuid
from pathlib import Path
from typing import Any

from benchmarks import floor_sqlite as floor
from benchmarks.measure import AsyncPair, Pair, Progress, Result, compare, compare_async
from benchmarks.ours import our_calls, sessions
from benchmarks.payload import BATCH, CONTENT, SESSIONS, context
from lifecycle import AsyncSessionManager, SessionManager

_numbers = itertools.count()


def _name(prefix: str) -> str:
    return f"{prefix}-{next(_numbers):012}-6f1c-7bb0-a1d2"


def _names(n: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(n)]


def _floor_calls(raw: Any, ids: list[str]) -> dict[str, Any]:
    def of(turn: int) -> str:
        return ids[turn % SESSIONS]

    return {
        "create_session": lambda _: floor.create(raw, _name("c")),
        "get_session": lambda i: floor.get(raw, of(i)),
        "save_state": lambda i: floor.save(raw, of(i), i, context(i)),
        "load_state": lambda i: floor.load(raw, of(i)),
        "add_message": lambda i: floor.add(raw, of(i), _names(1), CONTENT),
        f"add_messages ({BATCH})": lambda i: floor.add(raw, of(i), _names(BATCH), CONTENT),
        "suspend_session": lambda i: floor.move(raw, of(i), "suspend"),
        "resume_session": lambda i: floor.move(raw, of(i), "resume"),
        "touch_session": lambda i: floor.touch(raw, of(i)),
    }


def sync_results(path: Path, turns: int, progress: Progress) -> list[Result]:
    """The sync manager beside a connection in the same thread."""
    with SessionManager.open(f"sqlite:///{path}") as manager:
        manager.setup()
        theirs, ours = sessions(manager, "sync-floor"), sessions(manager, "sync-ours")
        raw = floor.connect(str(path))
        calls = our_calls(manager, ours)
        pairs = [Pair(name, call, calls[name]) for name, call in _floor_calls(raw, theirs).items()]
        results = compare("SQLite, sync", pairs, turns, progress)
        raw.close()
        return results


async def async_results(path: Path, turns: int, progress: Progress) -> list[Result]:
    """The async manager beside raw sqlite3, which blocks the event loop: the floor is the same as for sync."""
    with SessionManager.open(f"sqlite:///{path}") as setter:
        setter.setup()
        theirs, ours = sessions(setter, "async-floor"), sessions(setter, "async-ours")
    raw = floor.connect(str(path))
    async with AsyncSessionManager.open(f"sqlite:///{path}") as manager:
        calls = our_calls(manager, ours)
        pairs = [AsyncPair(name, _awaitable(call), calls[name]) for name, call in _floor_calls(raw, theirs).items()]
        results = await compare_async("SQLite, async", pairs, turns, progress)
    raw.close()
    return results


def _awaitable(call: Any) -> Any:
    async def run(turn: int) -> Any:
        return call(turn)

    return run
