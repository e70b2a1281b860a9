"""Reads through the cache beside the same reads without one, and the longest call while the cache fails."""

import asyncio
import itertools
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.measure import AsyncPair, Pair, Progress, Result, compare, compare_async
from benchmarks.payload import SESSIONS, context
from lifecycle import AsyncSessionManager, SessionManager, Settings
from tests.valkey import ValkeyServer, find_valkey

LARGE_SESSIONS = 20
AT_ONCE = 4  # threads, or tasks
SECONDS = 3.0  # that the cache is well, and then fails


@dataclass(frozen=True, slots=True)
class Longest:
    """Reads while something happened to the cache: what became of them, the most that the cache cost one, and times."""

    setting: str
    happening: str
    calls: int
    hits: int
    passed: int
    failures: int
    cost_ms: float
    median_us: float
    thousandth_us: float
    longest_us: float


@dataclass(frozen=True, slots=True)
class Cached:
    """Reads with a cache beside those without (which are the floor), and while it fails."""

    results: list[Result]
    watched: list[Longest]

    def __add__(self, other: "Cached") -> "Cached":
        """Both."""
        return Cached(self.results + other.results, self.watched + other.watched)


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
        large = [f"{prefix}-l-{number:06}-6f1c-a1d2" for number in range(LARGE_SESSIONS)]
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


def sync_results(database: str, url: str, server: ValkeyServer, turns: int, progress: Progress) -> list[Result]:
    """The sync manager without a cache (the floor) and with one."""
    ids = fill(url, "sync")
    with (
        SessionManager.open(settings_for(url, None)) as plain,
        SessionManager.open(settings_for(url, server)) as cached,
    ):
        named = calls(plain, cached, ids, asynchronous=False)
        results = compare(f"{database}, sync", [Pair(*one) for one in named], turns, progress)
        _check(cached, turns)
    return results


async def async_results(database: str, url: str, server: ValkeyServer, turns: int, progress: Progress) -> list[Result]:
    """The async manager without a cache (the floor) and with one."""
    ids = fill(url, "async")
    async with (
        AsyncSessionManager.open(settings_for(url, None)) as plain,
        AsyncSessionManager.open(settings_for(url, server)) as cached,
    ):
        named = calls(plain, cached, ids, asynchronous=True)
        results = await compare_async(f"{database}, async", [AsyncPair(*one) for one in named], turns, progress)
        _check(cached, turns)
    return results


def _check(cached: Any, turns: int) -> None:
    counts = cached._driver.cache.counts  # noqa: SLF001 - that the cache was measured, and not the database
    # Three reads of each turn are answered by it, but for the first of each session.
    assert counts.hits >= 3 * turns - 2 * SESSIONS - LARGE_SESSIONS, counts


@contextmanager
def _as_it_is(_server: ValkeyServer) -> Iterator[None]:
    yield


@contextmanager
def _killed(server: ValkeyServer) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def _paused(server: ValkeyServer) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def _spoilt(server: ValkeyServer) -> Iterator[None]:
    """Overwrite every key, again and again."""
    import valkey

    stop = threading.Event()

    def spoil() -> None:
        with valkey.Valkey(unix_socket_path=str(server.socket)) as client:
            while not stop.wait(0.01):
                for key in client.scan_iter(count=1000):
                    client.set(key, b"E1" + os.urandom(1000))

    thread = threading.Thread(target=spoil)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _full(server: ValkeyServer) -> Iterator[None]:
    server.ask("FLUSHALL")
    server.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        yield
    finally:
        server.ask("CONFIG", "SET", "maxmemory", "0")


HAPPENINGS: dict[str, Callable[[ValkeyServer], Any]] = {
    "all is well": _as_it_is,
    "killed": _killed,
    "paused": _paused,
    "garbage in every key": _spoilt,
    "full": _full,
}


def failing(database: str, url: str, server: ValkeyServer, progress: Progress) -> list[Longest]:
    """Read from several threads (or tasks), without a cache, and with one to which each of these happens meanwhile."""
    ids = fill(url, "failing").small
    found = []
    for asynchronous in (False, True):
        setting = f"{database}, {'async' if asynchronous else 'sync'}"
        watch = _watch_async if asynchronous else _watch
        found.append(watch(setting, "no cache", settings_for(url, None), ids, lambda: _as_it_is(server)))
        progress()
        for name, happening in HAPPENINGS.items():
            found.append(watch(setting, name, settings_for(url, server), ids, partial(happening, server)))
            progress()
    return found


def _watch(setting: str, name: str, settings: Settings, ids: list[str], happening: Callable[[], Any]) -> Longest:
    spent: list[list[int]] = [[] for _ in range(AT_ONCE)]
    stop = threading.Event()

    def work(own: list[int]) -> None:
        for turn in itertools.count():
            if stop.is_set():
                return
            for read in (manager.get_session, manager.load_state):
                started = time.perf_counter_ns()
                read(ids[turn % len(ids)])
                own.append(time.perf_counter_ns() - started)

    with SessionManager.open(settings) as manager:
        threads = [threading.Thread(target=work, args=(own,)) for own in spent]
        for thread in threads:
            thread.start()
        time.sleep(SECONDS / 3)
        with happening():
            time.sleep(SECONDS)
        time.sleep(SECONDS / 3)
        stop.set()
        for thread in threads:
            thread.join()
        return _summary(setting, name, spent, manager)


def _watch_async(setting: str, name: str, settings: Settings, ids: list[str], happening: Callable[[], Any]) -> Longest:
    """The tasks' event loop has a thread of its own, so that what happens to the server does not stop it."""
    spent: list[list[int]] = [[] for _ in range(AT_ONCE)]
    stop = threading.Event()

    async def work(manager: AsyncSessionManager, own: list[int]) -> None:
        for turn in itertools.count():
            if stop.is_set():
                return
            for read in (manager.get_session, manager.load_state):
                started = time.perf_counter_ns()
                await read(ids[turn % len(ids)])
                own.append(time.perf_counter_ns() - started)
                await asyncio.sleep(0)  # SQLite's reads are made in the event loop: let the others have a turn

    async def run() -> Longest:
        async with AsyncSessionManager.open(settings) as manager:
            await asyncio.gather(*(work(manager, own) for own in spent))
            return _summary(setting, name, spent, manager)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: asyncio.run(run()))
        time.sleep(SECONDS / 3)
        with happening():
            time.sleep(SECONDS)
        time.sleep(SECONDS / 3)
        stop.set()
        return running.result()


def _summary(setting: str, name: str, spent: list[list[int]], manager: Any) -> Longest:
    taken = sorted(one / 1000 for own in spent for one in own)
    counts = getattr(getattr(manager._driver, "cache", None), "counts", None)  # noqa: SLF001 - what became of the calls
    hits, passed, failures, cost = (
        (0, 0, 0, 0.0) if counts is None else (counts.hits, counts.passed, counts.failures, counts.longest * 1000)
    )
    median, most = statistics.median(taken), taken[int(len(taken) * 0.999)]
    return Longest(setting, name, len(taken), hits, passed, failures, cost, median, most, taken[-1])


def measure(database: str, url: str, turns: int, stage: Callable[[str, int], Progress]) -> Cached:
    """All of it, on one database."""
    total = turns + max(20, turns // 10)
    with ValkeyServer(find_valkey()) as server:
        results = sync_results(database, url, server, turns, stage(f"cache on {database}, sync", total))
        progress = stage(f"cache on {database}, async", total)
        results += asyncio.run(async_results(database, url, server, turns, progress))
        watched = failing(database, url, server, stage(f"failing cache on {database}", 2 * len(HAPPENINGS) + 2))
        return Cached(results, watched)
