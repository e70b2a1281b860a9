"""Group commit where threads or tasks write to one SQLite file, and where threads write to PostgreSQL."""

import asyncio
import contextlib
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lifecycle import AsyncSessionManager, SessionManager, Settings
from lifecycle.drivers.combining import Group, NotCommitted, Write
from lifecycle.errors import StorageUnavailable, VersionConflict
from tests.managers import opened

CALLERS = 24


@pytest.fixture(params=["sqlite-sync", "sqlite-async", "postgresql-sync"])
def store(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The URL of a database with the schema in place, and the kind of manager."""
    name, _, kind = request.param.partition("-")
    fixture = {"sqlite": "migrated_sqlite_url", "postgresql": "migrated_postgres_url"}[name]
    return request.getfixturevalue(fixture), kind


@pytest.fixture
def manager(store: tuple[str, str]) -> Iterator[Any]:
    """A manager with some sessions."""
    with opened(Settings(database={"url": store[0], "pool_size": 30}), store[1]) as manager:
        for i in range(CALLERS):
            manager.create_session(session_id=f"s-{i:02}")
        yield manager


@contextlib.contextmanager
def held_up(url: str) -> Iterator[Callable[[], None]]:
    """Whoever writes waits for a lock of somebody else's, until this is called or left."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield other.rollback
            other.rollback()
    else:
        with psycopg.connect(url) as connection:
            connection.execute("LOCK TABLE sessions IN SHARE MODE")
            yield connection.rollback
            connection.rollback()


def commits(url: str) -> int:
    """How many transactions are in the log of a SQLite file: a frame with a size ends one (its format, section 4.3)."""
    log = Path(url.removeprefix("sqlite:///") + "-wal").read_bytes()
    page = struct.unpack(">I", log[8:12])[0]
    salt = log[16:24]
    frames = [log[at : at + 24] for at in range(32, len(log) - page, page + 24)]
    return sum(frame[8:16] == salt and frame[4:8] != bytes(4) for frame in frames)


def queued(manager: Any, kind: str) -> int:
    """How many writes wait for their turn."""
    if kind == "async":
        return len(manager.__dict__["_manager"]._driver._writes)
    driver = manager._driver
    return sum(len(group._waiting) for group in getattr(driver, "_lanes", None) or [driver._group])


def led(manager: Any, kind: str) -> bool:
    """Whether a write is under way, and none waits."""
    if kind == "async":
        driver = manager.__dict__["_manager"]._driver
        return bool(driver._writing) and not driver._writes
    return manager._driver._group._leader is not None


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that happens in another thread."""
    event, end = threading.Event(), 30.0
    while not holds():
        assert end > 0
        event.wait(0.002)
        end -= 0.002


def together(manager: Any, store: tuple[str, str], call: Callable[[int], Any]) -> list[Future[Any]]:
    """What came of a call by each of many callers, who wrote while somebody else held a lock."""
    url, kind = store
    with ThreadPoolExecutor(CALLERS) as pool, held_up(url) as let_go:
        calls = [pool.submit(call, 0)]
        if url.startswith("sqlite"):
            until(lambda: led(manager, kind))
        calls += [pool.submit(call, i) for i in range(1, CALLERS)]
        if url.startswith("sqlite"):
            until(lambda: queued(manager, kind) >= CALLERS - 1)
        let_go()
    return calls


def test_writes_that_queue_up_share_a_transaction(manager: Any, store: tuple[str, str]) -> None:
    """All of them return, and each session has what was written to it."""
    url, _ = store
    before = commits(url) if url.startswith("sqlite") else 0
    calls = together(manager, store, lambda i: manager.save_state(f"s-{i:02}", step=i))
    assert [call.result() for call in calls] == [2] * CALLERS
    assert [manager.load_state(f"s-{i:02}").step for i in range(CALLERS)] == list(range(CALLERS))
    if url.startswith("sqlite"):
        assert commits(url) == before + 2


def test_refusals_and_errors_are_their_callers_alone(manager: Any, store: tuple[str, str]) -> None:
    """One expects another version, for another the database itself refuses; all others are written."""
    url, _ = store
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as other:
            other.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON session_states WHEN new.session_id = 's-07'"
                " BEGIN SELECT RAISE(ABORT, 'not this one'); END"
            )
    else:
        with psycopg.connect(url) as connection:
            connection.execute(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$"
            )
            connection.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON session_states FOR EACH ROW"
                " WHEN (new.session_id = 's-07') EXECUTE FUNCTION refuse()"
            )
    calls = together(
        manager,
        store,
        lambda i: manager.save_state(f"s-{i:02}", step=i, context={"n": i}, expected_version=5 if i == 3 else 1),
    )
    errors = {i: call.exception() for i, call in enumerate(calls) if call.exception() is not None}
    assert {i: type(error) for i, error in errors.items()} == {3: VersionConflict, 7: StorageUnavailable}
    assert "not this one" in str(errors[7])
    versions = [manager.get_session(f"s-{i:02}").version for i in range(CALLERS)]
    assert versions == [1 if i in errors else 2 for i in range(CALLERS)]


def test_many_writers_lose_nothing(manager: Any) -> None:
    """Callers that write to each other's sessions: every save that returned counts, and each has its own version."""
    seen: list[tuple[int, int]] = []

    def work(i: int) -> None:
        for n in range(10):
            name = (i + n) % 5
            seen.append((name, manager.save_state(f"s-{name:02}", append=[[i, n]])))

    with ThreadPoolExecutor(CALLERS) as pool:
        for call in [pool.submit(work, i) for i in range(CALLERS)]:
            call.result()
    assert len(set(seen)) == len(seen) == CALLERS * 10
    for name in range(5):
        conversation = manager.load_state(f"s-{name:02}").conversation
        assert sorted(conversation) == sorted([i, n] for i in range(CALLERS) for n in range(10) if (i + n) % 5 == name)


def test_a_lock_on_one_session_holds_up_nobody_else(migrated_postgres_url: str) -> None:
    """Threads whose lane is held up go by themselves."""
    with SessionManager.open(migrated_postgres_url) as manager, psycopg.connect(migrated_postgres_url) as other:
        for i in range(CALLERS):
            manager.create_session(session_id=f"s-{i:02}")
        other.execute("SELECT FROM sessions WHERE session_id IN ('s-00', 's-01') FOR UPDATE")
        with ThreadPoolExecutor(CALLERS) as pool:
            calls = [pool.submit(manager.save_state, f"s-{i:02}", step=i) for i in range(CALLERS)]
            assert [call.result(30) for call in calls[2:]] == [2] * (CALLERS - 2)
            assert not any(call.done() for call in calls[:2])
            other.rollback()
            assert [call.result(30) for call in calls[:2]] == [2, 2]


def test_who_is_cancelled_takes_nobody_with_him(migrated_sqlite_url: str) -> None:
    """Of tasks that queue, those cancelled are not written; the others are."""

    async def main() -> None:
        async with AsyncSessionManager.open(migrated_sqlite_url) as manager:
            for i in range(CALLERS):
                await manager.create_session(session_id=f"s-{i:02}")
            with held_up(migrated_sqlite_url) as let_go:
                driver: Any = manager._driver
                tasks = [asyncio.create_task(manager.save_state("s-00", step=0))]
                while not driver._writing or driver._writes:  # noqa: ASYNC110 -- it happens in a thread
                    await asyncio.sleep(0)
                tasks += [asyncio.create_task(manager.save_state(f"s-{i:02}", step=i)) for i in range(1, CALLERS)]
                while len(driver._writes) < CALLERS - 1:  # noqa: ASYNC110 -- as above
                    await asyncio.sleep(0)
                for task in tasks[1::3]:
                    task.cancel()
                await asyncio.sleep(0)
                let_go()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            for i, answer in enumerate(answers):
                session = await manager.get_session(f"s-{i:02}")
                assert session is not None
                if i % 3 == 1:
                    assert isinstance(answer, asyncio.CancelledError)
                    assert session.version == 1
                else:
                    assert (answer, session.version) == (2, 2)

    asyncio.run(main())


def test_an_interrupt_at_the_commit_writes_nothing_twice(migrated_sqlite_url: str) -> None:
    """The leader is interrupted when the log is synced: what was committed along with his counts once."""
    with SessionManager.open(migrated_sqlite_url) as manager:
        for i in range(CALLERS):
            manager.create_session(session_id=f"s-{i:02}")
        driver: Any = manager._driver
        commit_together = driver._group._together
        hit = threading.Event()

        def interrupted(writes: list[Write]) -> None:
            class Interrupting:
                """A cursor whose COMMIT returns into a signal handler that raises."""

                def __init__(self, cursor: sqlite3.Cursor) -> None:
                    self._cursor = cursor

                def execute(self, text: str, *values: Any) -> Any:
                    done = self._cursor.execute(text, *values)
                    if text == "COMMIT" and not hit.is_set():
                        hit.set()
                        raise KeyboardInterrupt
                    return done

                def __getattr__(self, name: str) -> Any:
                    return getattr(self._cursor, name)

            connection_of = driver._connection

            @contextlib.contextmanager
            def connection(request: Any) -> Iterator[Any]:
                with connection_of(request) as inner:

                    class Wrapped:
                        """The connection, with such a cursor."""

                        def cursor(self) -> Any:
                            return Interrupting(inner.cursor())

                        def __getattr__(self, name: str) -> Any:
                            return getattr(inner, name)

                    yield Wrapped()

            driver._connection = connection
            try:
                commit_together(writes)
            finally:
                driver._connection = connection_of

        driver._group._together = interrupted
        calls = together(manager, (migrated_sqlite_url, "sync"), lambda i: manager.save_state(f"s-{i:02}", append=[i]))
        assert hit.is_set()
        ends = [call.exception() for call in calls]
        assert [type(end) for end in ends if end is not None] == [KeyboardInterrupt]
        for i in range(CALLERS):
            state = manager.load_state(f"s-{i:02}")
            assert state is not None
            assert state.conversation == [i]


def test_what_cannot_be_opened_is_told_to_everybody(migrated_sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks whose batch finds no connection are told, and later writes go on."""

    async def main() -> None:
        async with AsyncSessionManager.open(migrated_sqlite_url) as manager:
            for i in range(CALLERS):
                await manager.create_session(session_id=f"s-{i:02}")
            driver: Any = manager._driver

            def fails() -> None:
                raise StorageUnavailable("SQLite: unable to open database file")

            with monkeypatch.context() as patched:
                patched.setattr(driver.driver, "_take", fails)
                async with asyncio.timeout(20):
                    calls = [manager.save_state(f"s-{i:02}", step=i) for i in range(CALLERS)]
                    answers = await asyncio.gather(*calls, return_exceptions=True)
                assert {type(answer) for answer in answers} == {StorageUnavailable}
            async with asyncio.timeout(20):
                assert await manager.save_state("s-00", step=1) == 2

    asyncio.run(main())


class TestTheQueue:
    """The threads' queue by itself."""

    def led(self, together: Callable[[list[Write]], None], followers: int = 4) -> list[Future[Any]]:
        """What came of followers whose writes are committed by one of them, while a first one held the lead."""
        entered, go = threading.Event(), threading.Event()

        def alone(request: Any) -> Any:
            if request == "first":
                entered.set()
                go.wait(30)
            return f"{request} alone"

        group = Group(together, alone)
        with ThreadPoolExecutor(5) as pool:
            first = pool.submit(group.run, "first")
            entered.wait(30)
            others = [pool.submit(group.run, str(i)) for i in range(followers)]
            until(lambda: len(group._waiting) == followers)
            go.set()
            assert first.result(30) == "first alone"
            for other in others:
                other.exception(30)
            assert group._leader is None
            assert group.run("last") == "last alone"
        return others

    def test_before_anything_was_sent_an_interrupt_leaves_the_others_to_themselves(self) -> None:
        """Nothing was committed, and each thread tries its own."""

        def interrupted(_writes: list[Write]) -> None:
            raise KeyboardInterrupt

        others = self.led(interrupted)
        ends = [other.exception() for other in others]
        assert [type(end) for end in ends if end is not None] == [KeyboardInterrupt]
        assert all(other.result().endswith(" alone") for other, end in zip(others, ends, strict=True) if end is None)

    def test_once_it_was_sent_an_interrupt_leaves_the_outcome_open(self) -> None:
        """It may have been committed: nobody writes it again, and each caller is told."""

        def interrupted(writes: list[Write]) -> None:
            for write in writes:
                write.sent = True
            raise KeyboardInterrupt

        errors = [other.exception() for other in self.led(interrupted)]
        assert sorted(type(error).__name__ for error in errors) == ["KeyboardInterrupt", *["StorageUnavailable"] * 3]
        assert all(error.outcome_unknown for error in errors if isinstance(error, StorageUnavailable))

    def test_a_handler_on_top_of_the_leader_goes_by_itself(self) -> None:
        """A signal handler that writes while its own thread commits does not queue behind itself."""
        inner: list[Any] = []

        def together(writes: list[Write]) -> None:
            inner.append(group.run("handler"))
            for write in writes:
                write.value, write.tried = write.work, True

        def alone(request: Any) -> Any:
            if request == "first":
                inner.append(group.run("handler"))
            return request

        group = Group(together, alone)
        assert group.run("first") == "first"
        assert inner == ["handler"]

    def test_a_batch_that_is_rolled_back_is_tried_one_by_one(self) -> None:
        """Whatever the batch set before it failed."""

        def fails(writes: list[Write]) -> None:
            for write in writes:
                write.value, write.tried = "wrong", True
            raise NotCommitted

        entered, go = threading.Event(), threading.Event()

        def alone(request: Any) -> Any:
            if request == "first":
                entered.set()
                go.wait(30)
            return request

        group = Group(fails, alone)
        with ThreadPoolExecutor(4) as pool:
            first = pool.submit(group.run, "first")
            entered.wait(30)
            others = [pool.submit(group.run, i) for i in range(3)]
            until(lambda: len(group._waiting) == 3)
            go.set()
            assert [first.result(30), *(other.result(30) for other in others)] == ["first", 0, 1, 2]
        assert group._leader is None
