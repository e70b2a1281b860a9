"""News by NOTIFY: it wakes who waits, is told of seldom, and its loss costs no more than a pause.

Where a test waits for what only news brings in time, the next look would come after minutes.
"""

import asyncio
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from lifecycle import AsyncSessionManager, InvalidTransition, SessionManager, SessionRunner, Settings, lease_context
from lifecycle.drivers.postgresql_bell import CHANNEL, SPACING, PostgresBell
from lifecycle.news import ANY_LEASE, LOG, lease_of
from lifecycle.run import Run

PATIENCE = 30.0
LONG = 600.0


def until(condition: Callable[[], Any]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def bell_of(manager: Any) -> PostgresBell:
    """The bell of a manager that has one."""
    bell = manager._driver.bell
    assert isinstance(bell, PostgresBell)
    return bell


def hears(url: str) -> bool:
    """Whether somebody listens, having had time for nothing else since."""
    with psycopg.connect(url) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        row = connection.execute(query).fetchone()
    return row is not None and row[0] > 0


@pytest.fixture
def url(migrated_postgres_url: str) -> str:
    """A database with the schema in place."""
    return migrated_postgres_url


@pytest.fixture
def manager(url: str) -> Iterator[SessionManager]:
    """Another one than who waits: with settings of its own, it has a bell of its own."""
    with SessionManager.open(Settings(database={"url": url, "search_timeout": 4})) as opened:
        yield opened


@pytest.fixture
def slow_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for a lease, look once in ten minutes."""
    monkeypatch.setattr(lease_context, "_pauses", lambda _wait: itertools.repeat(LONG))


@pytest.mark.usefixtures("slow_pauses")
def test_a_freed_lease_wakes_who_waits_for_it(url: str, manager: SessionManager) -> None:
    """Sync and async; those who wait for another session's sleep on."""

    async def wait_async() -> int:
        async with AsyncSessionManager.open(url) as own, own.lease("a", wait=LONG) as lease:
            return lease.epoch

    def wait() -> int:
        with SessionManager.open(url) as own, own.lease("s", wait=LONG) as lease:
            return lease.epoch

    for session_id in ("s", "a"):
        manager.create_session(session_id=session_id)
    with ThreadPoolExecutor() as threads:
        with manager.lease("s", holder="first"), manager.lease("a", holder="first"):
            waiting, waiting_async = threads.submit(wait), threads.submit(lambda: asyncio.run(wait_async()))
            until(lambda: hears(url))
            assert not waiting.done()
        assert waiting.result(PATIENCE) == waiting_async.result(PATIENCE) == 2


@pytest.mark.usefixtures("slow_pauses")
def test_the_end_of_a_session_wakes_who_waits_for_its_lease(url: str, manager: SessionManager) -> None:
    """He is told that there is nothing to wait for."""
    manager.create_session(session_id="s")

    def wait() -> None:
        with SessionManager.open(url) as own, own.lease("s", wait=LONG):
            pass

    with ThreadPoolExecutor() as threads, manager.lease("s", holder="first") as lease:
        waiting = threads.submit(wait)
        until(lambda: hears(url))
        manager.complete_session("s", lease=lease)
        with pytest.raises(InvalidTransition):
            waiting.result(PATIENCE)


def test_new_work_wakes_a_runner(url: str, manager: SessionManager) -> None:
    """A session that is created available, one that is made so, one that is resumed, and one that is handed back."""
    done: list[str] = []
    with SessionRunner(url, poll=LONG) as runner:

        @runner.handler("k")
        def work(run: Run) -> None:
            done.append(run.session_id)

        manager.create_session(session_id="later", kind="k")
        manager.create_session(session_id="resumed", kind="k", available_at=datetime(2000, 1, 1, tzinfo=UTC))
        manager.suspend_session("resumed")
        running = threading.Thread(target=runner.run)
        running.start()
        until(lambda: hears(url))
        manager.create_session(session_id="new", kind="k", available_at=datetime(2000, 1, 1, tzinfo=UTC))
        until(lambda: done == ["new"])
        manager.update_session("later", available_at=datetime(2000, 1, 1, tzinfo=UTC))
        until(lambda: done == ["new", "later"])
        manager.resume_session("resumed")
        until(lambda: done == ["new", "later", "resumed"])
        runner.stop()
        running.join(PATIENCE)
        assert not running.is_alive()


def test_a_commit_wakes_watches(url: str, manager: SessionManager) -> None:
    """Sync and async, at each transition of another process's."""

    async def watch_async() -> list[str]:
        async with AsyncSessionManager.open(url) as own, own.watch(poll=LONG) as events:
            ready.set()
            return [(await anext(events)).trigger for _ in range(2)]

    def watch() -> list[str]:
        with SessionManager.open(url) as own, own.watch(poll=LONG) as events:
            ready.wait(PATIENCE)
            both.set()
            return [next(events).trigger for _ in range(2)]

    ready, both = threading.Event(), threading.Event()
    with ThreadPoolExecutor() as threads:
        seen = [threads.submit(watch), threads.submit(lambda: asyncio.run(watch_async()))]
        assert both.wait(PATIENCE)
        manager.create_session(session_id="s")
        manager.end_session("s")
        assert [each.result(PATIENCE) for each in seen] == [["create", "end"]] * 2


def test_hot_operations_tell_nobody(url: str) -> None:
    """No save, message, read, touch or beat is news: there is not even a connection for it."""
    with SessionManager.open(url) as manager:
        manager.create_session(session_id="s")
        bell = bell_of(manager)
        until(lambda: bell.sent == 1)
        with manager.lease("s", ttl=1, heartbeat=0.05) as lease:
            for step in range(20):
                manager.save_state("s", step=step, lease=lease)
                manager.add_message("s", "user", "hello", lease=lease)
                manager.load_state("s")
                manager.touch_session("s")
            assert bell.sent == 1
            assert not bell._pending
        until(lambda: bell.sent == 2)


def test_news_is_gathered(url: str) -> None:
    """Hundreds of commits are told of once in 50 ms."""
    with psycopg.connect(url, autocommit=True) as connection, SessionManager.open(url) as manager:
        connection.execute(f"LISTEN {CHANNEL}".encode())
        began = time.monotonic()
        for i in range(300):
            manager.create_session(session_id=f"s{i}")
        bell = bell_of(manager)
        until(lambda: not bell._pending)
        took = time.monotonic() - began
        assert 1 <= bell.sent <= took / SPACING + 1
        sent = bell.sent
        notes = list(connection.notifies(timeout=PATIENCE, stop_after=sent))
        assert [note.payload for note in notes] == [LOG] * sent


def test_many_freed_leases_fit_one_notification(url: str, manager: SessionManager) -> None:
    """More than a payload holds are told of as any."""
    woken, other = threading.Event(), threading.Event()
    bell, hearing = bell_of(manager), PostgresBell(Settings(database={"url": url}).database)
    end = hearing.listen(lease_of("t", "777"), woken.set)
    hearing.listen(LOG, other.set)
    until(woken.is_set)  # whoever begins to listen is woken once: he may have missed something
    for event in (woken, other):
        until(event.is_set)
        event.clear()
    bell.ring(tuple(lease_of("t", str(number)) for number in range(2000)))
    assert woken.wait(PATIENCE)
    assert not other.is_set()
    end()
    hearing.close()
    assert ANY_LEASE == "lease"


def test_a_cut_connection_is_made_anew(url: str, manager: SessionManager) -> None:
    """And whoever listens is woken then, for what he may have missed."""
    woken = threading.Event()
    bell = bell_of(manager)
    end = bell.listen(LOG, woken.set)
    for _ in range(3):
        assert woken.wait(PATIENCE)
        woken.clear()
        with psycopg.connect(url, autocommit=True) as connection:
            query = """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE application_name = 'lifecycle news' AND datname = current_database()"""
            assert connection.execute(query).fetchone() == (1,)
    assert woken.wait(PATIENCE)
    woken.clear()
    manager.create_session(session_id="s")
    assert woken.wait(PATIENCE)
    end()


def test_without_it_polling_does(url: str, manager: SessionManager) -> None:
    """`notify: false` takes no connection more; what waits comes to it at its next look."""
    with SessionManager.open(Settings(database={"url": url, "notify": False})) as own, own.watch(poll=0.05) as events:
        assert own._driver.bell is None
        manager.create_session(session_id="s")
        assert next(events).session_id == "s"
        with ThreadPoolExecutor() as threads, manager.lease("s", holder="first"):
            waiting = threads.submit(own.lease("s", wait=LONG).__enter__)
        assert waiting.result(PATIENCE).epoch == 2


def test_a_process_that_ends_at_once_has_told(url: str, manager: SessionManager) -> None:
    """Closing waits for the last words."""
    woken = threading.Event()
    end = bell_of(manager).listen(LOG, woken.set)
    assert woken.wait(PATIENCE)
    woken.clear()
    code = "import sys; from lifecycle import SessionManager\nwith SessionManager.open(sys.argv[1]) as m: m.create_session()"
    subprocess.run([sys.executable, "-c", code, url], check=True, env=os.environ, timeout=PATIENCE)
    assert woken.wait(PATIENCE)
    end()


def test_idle_it_keeps_no_connection(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread and its connection go when there was nothing to tell for a while, and come back with news."""
    monkeypatch.setattr("lifecycle.drivers.postgresql_bell._IDLE", 0.05)
    with SessionManager.open(url) as manager:
        bell = bell_of(manager)
        for turn in (1, 2):
            manager.create_session(session_id=str(turn))
            until(lambda turn=turn: bell.sent == turn)  # type: ignore[misc]
            until(lambda: bell._thread is None)
