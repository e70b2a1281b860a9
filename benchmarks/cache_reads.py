"""Reads through the cache beside the same reads without one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.measure import AsyncPair, Pair, Progress, Result, compare, compare_async
from benchmarks.payload import SESSIONS, context
from lifecycle import AsyncSessionManager, SessionManager, Settings
from tests.valkey import ValkeyServer

_LARGE_SESSIONS: Final = 20


def settings_for(url: str, server: ValkeyServer | None) -> Settings:
    """A database, behind a cache with all its defaults where there is a server."""
    return Settings(database={"url": url}, cache={"url": None if server is None else server.url})


@dataclass(frozen=True, slots=True)
class Ids:
    """Sessions with a state of 900 bytes, some with one of 100 KB, and some that are written all the time."""

    small: list[str]
    large: list[str]
    written: list[str]


def fill(url: str, prefix: str) -> Ids:
    """Make them."""
    with SessionManager.open(url) as manager:
        small, written = ([f"{prefix}-{kind}-{number:06}-6f1c-a1d2" for number in range(SESSIONS)] for kind in "sw")
        large = [f"{prefix}-l-{number:06}-6f1c-a1d2" for number in range(_LARGE_SESSIONS)]
        for session in (*small, *written):
            manager.open_session(session, user_id="ann", title="A title", context=context(0))
        entries = [{"role": "user", "content": f"{number:06} " + "the quick brown fox " * 10} for number in range(420)]
        for session in large:
            manager.open_session(session, conversation=entries)
    return Ids(small, large, written)


def calls(plain: Any, cached: Any, ids: Ids, *, asynchronous: bool) -> list[tuple[str, Any, Any]]:
    """What is timed, by name: without a cache, and with one."""

    def read(manager: Any, method: str, of: list[str]) -> Callable[[int], Any]:
        call = getattr(manager, method)
        return lambda turn: call(of[turn % len(of)])

    reads = (("get_session", "", ids.small), ("load_state", "", ids.small), ("load_state", " (100 KB)", ids.large))
    both = _both_async if asynchronous else _both
    return [
        *((method + more, read(plain, method, of), read(cached, method, of)) for method, more, of in reads),
        ("save_state, load_state", both(plain, ids.written), both(cached, ids.written)),
    ]


def _both(manager: Any, ids: list[str]) -> Callable[[int], Any]:
    def both(turn: int) -> None:
        manager.save_state(ids[turn % len(ids)], step=turn)
        manager.load_state(ids[turn % len(ids)])

    return both


def _both_async(manager: Any, ids: list[str]) -> Callable[[int], Any]:
    async def both(turn: int) -> None:
        await manager.save_state(ids[turn % len(ids)], step=turn)
        await manager.load_state(ids[turn % len(ids)])

    return both


def sync_results(
    database: str, url: str, server: ValkeyServer, turns: int, progress: Progress, until: float
) -> list[Result]:
    """The sync manager without a cache (the floor) and with one."""
    ids = fill(url, "sync")
    with (
        SessionManager.open(settings_for(url, None)) as plain,
        SessionManager.open(settings_for(url, server)) as cached,
    ):
        named = calls(plain, cached, ids, asynchronous=False)
        results = compare(f"{database}, sync", [Pair(*one) for one in named], turns, progress, until)
        _check(cached, results[0].turns)
    return results


async def async_results(
    database: str, url: str, server: ValkeyServer, turns: int, progress: Progress, until: float
) -> list[Result]:
    """The async manager without a cache (the floor) and with one."""
    ids = fill(url, "async")
    async with (
        AsyncSessionManager.open(settings_for(url, None)) as plain,
        AsyncSessionManager.open(settings_for(url, server)) as cached,
    ):
        named = calls(plain, cached, ids, asynchronous=True)
        results = await compare_async(f"{database}, async", [AsyncPair(*one) for one in named], turns, progress, until)
        _check(cached, results[0].turns)
    return results


def _check(cached: Any, turns: int) -> None:
    counts = cached._driver.cache.counts  # noqa: SLF001 - that the cache was measured, and not the database
    # Three reads of each turn are answered by it, but for the first of each session.
    assert counts.hits >= 3 * turns - 2 * SESSIONS - _LARGE_SESSIONS, counts
