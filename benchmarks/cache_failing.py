"""The longest read while the cache fails."""

import asyncio
import itertools
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from benchmarks.cache_reads import fill, settings_for
from benchmarks.grid import Grid
from benchmarks.measure import Progress
from lifecycle import AsyncSessionManager, SessionManager, Settings
from tests.valkey import ValkeyServer

_AT_ONCE: Final = 4  # threads, or tasks

_FAILING: Final = """While {at_once} threads (async: tasks) read for {seconds:.1f} s, this happens to the server for {most:.1f} s of them. Of all
calls: how many the cache answered, how many passed it over, and how many found it failing; the most time that one spent
waiting for the cache, all its questions together (its timeout is 50 ms); and what the calls took.
"""


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


def told(seconds: float) -> str:
    """What the table is of; something happens to the cache for so many seconds."""
    return _FAILING.format(at_once=_AT_ONCE, seconds=seconds * 5 / 3, most=seconds)


def grid(watched: Sequence[Longest]) -> Grid:
    """The table."""
    return Grid(_COLUMNS, [_row(one) for one in watched], texts=2)


_COLUMNS: Final = (
    "setting",
    "cache",
    "calls",
    "hits",
    "passed over",
    "failures",
    "cost at most (ms)",
    "median (µs)",
    "1 in 1,000 (ms)",
    "longest (ms)",
)


def _row(one: Longest) -> list[str]:
    return [
        one.setting,
        one.happening,
        *(f"{count:,}" for count in (one.calls, one.hits, one.passed, one.failures)),
        f"{one.cost_ms:.1f}",
        f"{one.median_us:,.0f}",
        f"{one.thousandth_us / 1000:.1f}",
        f"{one.longest_us / 1000:.1f}",
    ]


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


_HAPPENINGS: dict[str, Callable[[ValkeyServer], Any]] = {
    "all is well": _as_it_is,
    "killed": _killed,
    "paused": _paused,
    "garbage in every key": _spoilt,
    "full": _full,
}


STAGES: Final = 2 * len(_HAPPENINGS) + 2
"""How many times `failing` reports progress."""


def failing(database: str, url: str, server: ValkeyServer, progress: Progress, seconds: float) -> list[Longest]:
    """Read from several threads (or tasks), without a cache, and with one to which each of these happens meanwhile."""
    ids = fill(url, "failing").small
    found = []
    for asynchronous in (False, True):
        setting = f"{database}, {'async' if asynchronous else 'sync'}"
        watch = _watch_async if asynchronous else _watch
        nothing = partial(_as_it_is, server)
        found.append(watch(setting, "no cache", settings_for(url, None), ids, nothing, seconds))
        progress()
        for name, happening in _HAPPENINGS.items():
            found.append(watch(setting, name, settings_for(url, server), ids, partial(happening, server), seconds))
            progress()
    return found


def _watch(
    setting: str, name: str, settings: Settings, ids: list[str], happening: Callable[[], Any], seconds: float
) -> Longest:
    spent: list[list[int]] = [[] for _ in range(_AT_ONCE)]
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
        try:
            _let_happen(happening, seconds)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        return _summary(setting, name, spent, manager)


def _watch_async(
    setting: str, name: str, settings: Settings, ids: list[str], happening: Callable[[], Any], seconds: float
) -> Longest:
    """The tasks' event loop has a thread of its own, so that what happens to the server does not stop it."""
    spent: list[list[int]] = [[] for _ in range(_AT_ONCE)]
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
        try:
            _let_happen(happening, seconds)
        finally:
            stop.set()
        return running.result()


def _let_happen(happening: Callable[[], Any], seconds: float) -> None:
    time.sleep(seconds / 3)
    with happening():
        time.sleep(seconds)
    time.sleep(seconds / 3)


def _summary(setting: str, name: str, spent: list[list[int]], manager: Any) -> Longest:
    taken = sorted(one / 1000 for own in spent for one in own)
    counts = getattr(getattr(manager._driver, "cache", None), "counts", None)  # noqa: SLF001 - what became of the calls
    hits, passed, failures, cost = (
        (0, 0, 0, 0.0) if counts is None else (counts.hits, counts.passed, counts.failures, counts.longest * 1000)
    )
    median, most = statistics.median(taken), taken[int(len(taken) * 0.999)]
    return Longest(setting, name, len(taken), hits, passed, failures, cost, median, most, taken[-1])
