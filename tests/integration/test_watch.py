"""Every transition once, in the order of commits, from any cursor on: on every store, sync and async."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from lifecycle import (
    ALL,
    AsyncSessionManager,
    InvalidArgument,
    LifecycleError,
    SessionManager,
    Settings,
    StorageUnavailable,
    TransitionEvent,
    urls,
)
from lifecycle.models import tables as t
from lifecycle.models.types import transaction_id
from lifecycle.operations import requests as r
from lifecycle.operations.places import Place, read_cursor
from lifecycle.recipes import mariadb_watching
from lifecycle.watch import AsyncWatch, watches_on
from tests.managers import Blocking, backdate
from tests.plans import work_of
from tests.servers import MariaDBServer
from tests.wire import CountingProxy

PATIENCE = 60.0
POLL = 0.02


class Stepping:
    """An async watch behind blocking calls."""

    def __init__(self, watch: AsyncWatch, loop: asyncio.AbstractEventLoop) -> None:
        self._watch = watch
        self._loop = loop
        self._wait(watch.__aenter__())

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE * 2)

    def __iter__(self) -> Iterator[TransitionEvent]:
        return self

    def __next__(self) -> TransitionEvent:
        try:
            event: TransitionEvent = self._wait(self._watch.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None
        return event

    def close(self) -> None:
        """End it."""
        self._wait(self._watch.aclose())

    @property
    def cursor(self) -> str | None:
        """Where it stands."""
        return self._watch.cursor


def watching(manager: Any, after: str | None = None, **options: Any) -> Any:
    """A watch of either kind of manager."""
    watch = manager.watch(after, **{"poll": POLL, "timeout": PATIENCE} | options)
    return Stepping(watch, manager._loop) if isinstance(manager, Blocking) else watch


def some(watch: Any, count: int) -> list[TransitionEvent]:
    """The next events."""
    found = list(itertools.islice(watch, count))
    assert len(found) == count
    return found


def until(condition: Callable[[], Any]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def settle(manager: Any) -> None:
    """Wait until nobody writes: PostgreSQL shows what is committed once all who began before are done, autovacuum too."""
    settings = (manager._manager if isinstance(manager, Blocking) else manager).settings
    if settings.database.url.startswith("postgresql"):
        look = "SELECT pg_snapshot_xmin(s) = pg_snapshot_xmax(s) FROM pg_current_snapshot() AS s"
        with psycopg.connect(settings.database.url, autocommit=True) as connection:
            until(lambda: connection.execute(look).fetchone() == (True,))


def rest(manager: Any, after: str, **options: Any) -> list[TransitionEvent]:
    """What there is behind a cursor."""
    settle(manager)
    return list(watching(manager, after, timeout=0, **options))


def names(events: list[TransitionEvent]) -> list[tuple[str, str]]:
    """What happened to whom."""
    return [(event.session_id, event.trigger) for event in events]


def test_every_transition_is_seen_once_and_in_order(manager: Any) -> None:
    """From creation to deletion, with what the audit log knows of each; and nothing from before."""
    manager.create_session(session_id="before")
    watch = watching(manager)
    manager.create_session(session_id="s", actor="ada")
    manager.suspend_session("s", reason="waits")
    manager.create_session(session_id="other")
    manager.resume_session("s")
    manager.complete_session("s", actor="bob")
    events = some(watch, 5)
    assert names(events) == [
        ("s", "create"), ("s", "suspend"), ("other", "create"), ("s", "resume"), ("s", "complete"),
    ]  # fmt: skip
    own = [event for event in events if event.session_id == "s"]
    assert [event.model_dump(exclude={"cursor"}) for event in own] == [
        record.model_dump() for record in manager.history("s")
    ]
    manager.delete_session("s")
    (deleted,) = some(watch, 1)
    assert (deleted.trigger, deleted.from_state, deleted.to_state) == ("delete", "completed", None)
    assert rest(manager, deleted.cursor) == []
    watch.close()
    assert list(watch) == []


def test_going_on_from_any_cursor_gives_exactly_the_rest(manager: Any) -> None:
    """Whatever the size of what is read at once; the watch's own cursor stands behind what it gave."""
    for name in ("a", "b", "c"):
        manager.create_session(session_id=name)
        manager.suspend_session(name)
        manager.end_session(name)
    events = rest(manager, "")
    assert names(events) == [(name, what) for name in "abc" for what in ("create", "suspend", "end")]
    for i, event in enumerate(events):
        for batch in (1, 2, 500):
            assert rest(manager, event.cursor, batch=batch) == events[i + 1 :]
    watch = watching(manager, "", batch=4)
    assert watch.cursor == "" or rest(manager, watch.cursor) == events
    for i, event in enumerate(watch, start=1):
        assert event == events[i - 1]
        assert rest(manager, watch.cursor) == events[i:]
        if i == len(events):
            break


def test_the_end_of_patience(manager: Any) -> None:
    """Without anything new for `timeout` seconds it ends, and stays at its end; its cursor leads on."""
    manager.create_session(session_id="s")
    began = time.monotonic()
    watch = watching(manager, timeout=0.2, poll=60)
    assert list(watch) == []
    assert time.monotonic() - began >= 0.2
    manager.suspend_session("s")
    assert list(watch) == []
    assert names(rest(manager, watch.cursor)) == [("s", "suspend")]


def test_one_session(manager: Any) -> None:
    """The others are passed over, and not looked at again."""
    watch = watching(manager, session_id="s", batch=2)
    for i in range(5):
        manager.create_session(session_id=f"other{i}")
    manager.create_session(session_id="s")
    assert names(some(watch, 1)) == [("s", "create")]
    for i in range(5):
        manager.end_session(f"other{i}")
    settle(manager)
    watch = watching(manager, watch.cursor, session_id="s", batch=2, timeout=0)
    assert list(watch) == []
    assert rest(manager, watch.cursor) == []


def test_a_tenant_sees_its_own(migrated_url: str) -> None:
    """All of it and nothing else, in pages smaller than what lies between; a manager of all tenants sees all."""
    with SessionManager.open(migrated_url, "a") as manager:
        b, everyone = manager.for_tenant("b"), manager.for_tenant(ALL)
        live = watching(b, timeout=0)
        for i in range(10):
            manager.create_session(session_id=f"s{i}")
        b.create_session(session_id="s0")
        manager.end_session("s0")
        for batch in (1, 3, 500):
            assert [event.tenant for event in rest(manager, "", batch=batch)] == ["a"] * 11
            assert [(event.tenant, event.session_id) for event in rest(b, "", batch=batch)] == [("b", "s0")]
            assert [event.tenant for event in rest(everyone, "", batch=batch)] == ["a"] * 10 + ["b", "a"]
        (only,) = live
        assert rest(b, "") == [only]
        # Another tenant's cursor is a place like any other.
        assert names(rest(manager, only.cursor)) == [("s0", "end")]


@pytest.mark.parametrize(
    "bad",
    ["?", "é", "WyJ4Il0", "bnVsbA", "W10", "WzEsMiwzXQ", "\ud800", "x" * 200_000, 7, b"",
     "WyJzcWxpdGUiLC0xLDBd", "WyJzcWxpdGUiLHRydWUsMV0", "WyJzcWxpdGUiLDEuNSwwXQ"],
    ids=lambda bad: repr(bad)[:12],
)  # fmt: skip
def test_what_is_no_cursor(migrated_sqlite_url: str, bad: Any) -> None:
    """It is refused at the call, whatever it is."""
    with SessionManager.open(migrated_sqlite_url) as manager, pytest.raises(InvalidArgument, match="after"):
        manager.watch(bad)


def test_cursors_of_elsewhere_are_refused(manager: Any) -> None:
    """One of another kind of database, and one that lies ahead of this one: it would wait for what it passes over."""
    manager.create_session(session_id="s")
    (event,) = rest(manager, "")
    place = read_cursor(event.cursor)
    with pytest.raises(InvalidArgument, match="ahead"):
        watching(manager, place.at(2**62, 1).cursor())
    with pytest.raises(InvalidArgument, match="another database"):
        watching(manager, Place("elsewhere", 1, 1).cursor())


@pytest.mark.parametrize(
    "bad",
    [{"poll": 0}, {"poll": "1"}, {"poll": 10**9}, {"batch": 0}, {"batch": 10**6}, {"timeout": -1}, {"session_id": ""}],
    ids=str,
)
def test_options_that_cannot_work_are_refused(manager: Any, bad: dict[str, Any]) -> None:
    """Before anything is asked of the database."""
    with pytest.raises(InvalidArgument, match=next(iter(bad))):
        watching(manager, **bad)


def audit_insert(session_id: str) -> Any:
    """The statement that writes a line of the audit log."""
    return sa.insert(t.transitions).values(
        tenant="", session_id=session_id, seq=1, trigger_name="create", to_state="active", version=1,
        created_at=datetime.now(UTC), txid=transaction_id(),
    )  # fmt: skip


@pytest.fixture(params=["migrated_postgres_url", "migrated_postgres15_url", "migrated_mariadb_url"])
def server_url(request: pytest.FixtureRequest) -> str:
    """Databases that have several writers at once."""
    return str(request.getfixturevalue(request.param))


def test_a_transaction_that_commits_late_is_not_passed_over(server_url: str) -> None:
    """It began and wrote before another one, and committed behind it, with watches looking in between."""
    engine = sa.create_engine(urls.engine_url(server_url))
    with SessionManager.open(server_url) as manager, engine.connect() as early, engine.connect() as late:
        before = watching(manager, timeout=0)
        early.execute(audit_insert("early"))
        late.execute(audit_insert("late"))
        late.commit()
        # It begins while one transaction is under way and a later one is over.
        between = manager.watch(timeout=0)
        seen = list(before)
        assert names(seen) in ([], [("late", "create")])
        seen += manager.watch(before.cursor, timeout=0)
        assert list(manager.watch(between.cursor, timeout=0)) == []
        early.commit()
        seen += rest(manager, before.cursor if not seen else seen[-1].cursor)
        assert sorted(names(seen)) == [("early", "create"), ("late", "create")]
        assert names(rest(manager, "")) == names(seen)
        manager.create_session(session_id="third")
        settle(manager)
        after = list(between)
        assert names(after) == [("early", "create"), ("third", "create")]
        assert rest(manager, after[0].cursor) == after[1:]
        # What was rolled back is never seen.
        early.execute(audit_insert("never"))
        manager.create_session(session_id="fourth")
        early.rollback()
        assert names(rest(manager, after[-1].cursor)) == [("fourth", "create")]
    engine.dispose()


def test_many_writers_and_watches(migrated_url: str) -> None:
    """Four threads write; a sync and an async watch see every event exactly once, each session's in their order."""
    writers, each = 4, 15
    moves = ("create", "suspend", "resume", "end")
    total = writers * each * len(moves)
    seen: dict[str, list[TransitionEvent]] = {"sync": [], "async": []}
    starting = threading.Barrier(writers + 2)

    def write(name: int) -> None:
        with SessionManager.open(migrated_url) as own:
            starting.wait(PATIENCE)
            for i in range(each):
                session_id = f"{name}-{i}"
                own.create_session(session_id=session_id)
                own.suspend_session(session_id)
                own.resume_session(session_id)
                own.end_session(session_id)

    def watch() -> None:
        with SessionManager.open(migrated_url) as own:
            opened = own.watch(poll=POLL, timeout=PATIENCE, batch=7)
            starting.wait(PATIENCE)
            for event in opened:
                seen["sync"].append(event)
                if len(seen["sync"]) == total:
                    break

    async def watch_async() -> None:
        async with AsyncSessionManager.open(migrated_url) as own, own.watch(poll=POLL, timeout=PATIENCE) as opened:
            await asyncio.to_thread(starting.wait, PATIENCE)
            async for event in opened:
                seen["async"].append(event)
                if len(seen["async"]) == total:
                    break

    threads = [threading.Thread(target=write, args=(i,)) for i in range(writers)]
    threads += [threading.Thread(target=watch), threading.Thread(target=lambda: asyncio.run(watch_async()))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE * 2)
    with SessionManager.open(migrated_url) as manager:
        assert len(rest(manager, "")) == total
        assert rest(manager, seen["sync"][-1].cursor) == []
    for events in seen.values():
        assert len({(event.session_id, event.seq) for event in events}) == len(events) == total
        for session_id in {event.session_id for event in events}:
            assert tuple(event.trigger for event in events if event.session_id == session_id) == moves


_SCRIPT = """
import os, sys
from lifecycle import SessionManager
url, file, after = sys.argv[1:]
with SessionManager.open(url) as manager, open(file, "a") as out:
    for event in manager.watch(after, poll=0.01):
        out.write(f"{event.session_id} {event.seq} {event.cursor}\\n")
        out.flush()
"""


def start_watcher(url: str, file: Path, after: str) -> subprocess.Popen[bytes]:
    """A process that notes what it sees."""
    return subprocess.Popen([sys.executable, "-c", _SCRIPT, url, str(file), after], stderr=subprocess.PIPE)


def noted(file: Path) -> list[list[str]]:
    """The whole lines of its notes."""
    text = file.read_text() if file.exists() else ""
    return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]


def test_a_watcher_that_was_killed_goes_on(shared_url: str, tmp_path: Path) -> None:
    """From the last cursor it noted: every event is in its notes once. A watcher that is interrupted stops."""
    file = tmp_path / "seen"
    with SessionManager.open(shared_url) as manager:
        for i in range(20):
            manager.create_session(session_id=f"s{i}")
        watcher = start_watcher(shared_url, file, "")
        until(lambda: len(noted(file)) >= 5)
        for i in range(20):
            manager.suspend_session(f"s{i}")
        os.kill(watcher.pid, signal.SIGKILL)
        watcher.communicate()
        lines = noted(file)
        for i in range(20):
            manager.end_session(f"s{i}")
        again = tmp_path / "again"
        watcher = start_watcher(shared_url, again, lines[-1][2])
        until(lambda: len(lines) + len(noted(again)) >= 60)
        watcher.send_signal(signal.SIGINT)
        _, told = watcher.communicate(timeout=PATIENCE)
        assert told.rstrip().endswith(b"KeyboardInterrupt")
        lines += noted(again)
        assert [line[:2] for line in lines] == [[event.session_id, str(event.seq)] for event in rest(manager, "")]


def test_what_retention_removes_leaves_cursors_as_they_are(manager: Any, migrated_url: str) -> None:
    """The last lines of all are gone, and what comes after is seen from the old cursor all the same."""
    manager.create_session(session_id="s")
    manager.delete_session("s")
    (deleted,) = rest(manager, "")
    backdate(migrated_url, t.transitions, created_at=datetime.now(UTC) - timedelta(days=365))
    assert manager.trim() == 1
    live = watching(manager)
    assert rest(manager, "") == []
    manager.create_session(session_id="new")
    expected = some(live, 1)
    assert names(expected) == [("new", "create")]
    assert rest(manager, deleted.cursor) == rest(manager, "") == expected


def test_a_watch_ends_with_its_manager(migrated_url: str) -> None:
    """Those that wait in other threads too; `close` alone ends one quietly."""
    manager = SessionManager.open(migrated_url)
    closed, left = manager.watch(poll=PATIENCE), manager.watch(poll=PATIENCE)
    with ThreadPoolExecutor(2) as threads:
        quiet, loud = threads.submit(next, closed, None), threads.submit(next, left, None)
        until(lambda: closed._due > 0 and left._due > 0)
        closed.close()
        assert quiet.result(PATIENCE) is None
        assert not loud.done()
        manager.close()
        with pytest.raises(LifecycleError, match="closed"):
            loud.result(PATIENCE)
    assert next(closed, None) is None
    with pytest.raises(LifecycleError, match="closed"):
        next(left)
    with pytest.raises(LifecycleError, match="closed"):
        manager.watch()


def test_an_outage_is_raised(migrated_postgres_url: str) -> None:
    """And the cursor leads on: nothing is lost, nothing comes twice."""
    with SessionManager.open(migrated_postgres_url) as manager:
        with CountingProxy(migrated_postgres_url) as proxy:
            settings = Settings(database={"url": proxy.url, "connect_timeout": 1})
            away = SessionManager.open(settings)
            watch = away.watch(poll=POLL)
            manager.create_session(session_id="s")
            assert names(some(watch, 1)) == [("s", "create")]
        manager.end_session("s")
        for _ in range(2):
            with pytest.raises(StorageUnavailable):
                next(watch)
        assert names(rest(manager, watch.cursor or "")) == [("s", "end")]
        away.close()


def test_an_async_watch_is_cancelled_and_closed(migrated_url: str) -> None:
    """A step that is cancelled took nothing; `aclose` ends one that waits; closing the manager is an error."""

    async def run() -> None:
        manager = AsyncSessionManager.open(migrated_url)
        watch = manager.watch(poll=POLL)
        assert watch.cursor is None
        step = asyncio.ensure_future(anext(watch))
        while watch._due < 0:  # noqa: ASYNC110 -- it has looked once: no event says so
            await asyncio.sleep(POLL)
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        await manager.create_session(session_id="s")
        assert (await asyncio.wait_for(anext(watch), PATIENCE)).session_id == "s"
        waiting = asyncio.ensure_future(anext(watch, None))
        await asyncio.sleep(0)
        await watch.aclose()
        assert await asyncio.wait_for(waiting, PATIENCE) is None
        other = manager.watch("", poll=PATIENCE)
        assert (await anext(other)).session_id == "s"
        waiting = asyncio.ensure_future(anext(other))
        await asyncio.sleep(0)
        await manager.close()
        with pytest.raises(LifecycleError, match="closed"):
            await asyncio.wait_for(waiting, PATIENCE)
        with pytest.raises(LifecycleError, match="closed"):
            await anext(manager.watch())

    asyncio.run(run())


def test_a_watch_is_woken(migrated_url: str) -> None:
    """Who hears of news before the next look is due says so, in one place."""
    with SessionManager.open(migrated_url) as manager:
        watch = manager.watch(poll=3600, timeout=PATIENCE * 2)
        seen: list[TransitionEvent] = []
        thread = threading.Thread(target=lambda: seen.append(next(watch)))
        thread.start()
        until(lambda: watch._due > 0)
        manager.create_session(session_id="s")
        began = time.monotonic()
        watches_on(manager._driver).wake()
        thread.join(PATIENCE)
        assert time.monotonic() - began < PATIENCE
        assert names(seen) == [("s", "create")]


def test_a_look_with_nothing_new_reads_nothing(migrated_postgres_url: str) -> None:
    """Among 100,000 lines, of one tenant or of all; and ten new ones cost ten."""
    fill = """
        INSERT INTO session_transitions (tenant, session_id, seq, trigger_name, to_state, version, txid, created_at)
        SELECT '', md5(i::text), 1, 'create', 'active', 1, pg_current_xact_id()::text::bigint, now()
        FROM generate_series(1, %(n)s) AS i
    """
    with psycopg.connect(migrated_postgres_url, autocommit=True) as connection:
        connection.execute(fill, {"n": 100_000})
        connection.execute("VACUUM ANALYZE session_transitions")
        with SessionManager.open(migrated_postgres_url) as manager:
            settle(manager)
            start = read_cursor(manager.watch().cursor)
            first = read_cursor(next(manager.watch("", batch=1)).cursor)
        for tenant, session_id in (("", None), (None, None), ("", "s"), ("nobody", None)):
            connection.execute("BEGIN")
            work, (found, _, more) = work_of(connection, r.ReadTransitions(tenant, start, 500, session_id))
            assert (found, more, work.rows_read, work.sequential) == ([], False, 0, set())
            work, (_, _, more) = work_of(connection, r.ReadTransitions(tenant, first, 500, session_id))
            assert more
            assert work.rows_read <= 510
            assert work.indexes == {"ix_session_transitions_txid"}
            connection.execute("ROLLBACK")
        connection.execute(fill, {"n": 10})
        connection.execute("BEGIN")
        work, (found, _, _) = work_of(connection, r.ReadTransitions("", start, 500, None))
        assert len(found) == 10
        assert work.rows_read <= 12
        connection.execute("ROLLBACK")


def test_the_first_watch_of_an_old_database(mariadb_server: MariaDBServer, migrated_mariadb_url: str) -> None:
    """MariaDB numbers lines as they are watched: what nobody watched yet comes in order, or is left behind."""
    lines = mariadb_watching._BACKLOG + 1
    with SessionManager.open(migrated_mariadb_url) as manager:
        mariadb_server.execute(
            f"USE `{urls.engine_url(migrated_mariadb_url).database}`",
            "INSERT INTO session_transitions (tenant, session_id, seq, trigger_name, to_state, version, created_at)"
            f" SELECT '', seq, 1, 'create', 'active', 1, UTC_TIMESTAMP(6) FROM seq_1_to_{lines}",
        )
        first = itertools.islice(manager.watch("", timeout=0), 3)
        assert [event.session_id for event in first] == ["1", "2", "3"]
        watch = manager.watch(timeout=0)
        manager.create_session(session_id="new")
        assert names(list(watch)) == [("new", "create")]
        events = rest(manager, "", batch=777)
        assert [event.session_id for event in events] == [*map(str, range(1, lines + 1)), "new"]
