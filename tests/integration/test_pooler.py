"""Behind pgbouncer in transaction mode, where each transaction may have another connection than the one before."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from lifecycle import ALL, SessionManager, SessionRunner, Settings, migrate
from lifecycle.errors import SessionBusy, StorageUnavailable, VersionConflict
from lifecycle.manager.asynchronous import AsyncSessionManager
from lifecycle.models import tables as t
from tests.conftest import _found
from tests.managers import backdate, opened
from tests.pooler import PgBouncer, find_pgbouncer
from tests.servers import PostgresServer

PAST = datetime.now(UTC) - timedelta(days=400)


@pytest.fixture(scope="module")
def pooler(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """A pgbouncer with two connections for each database."""
    with PgBouncer(_found(find_pgbouncer), postgres_server) as pooler:
        yield pooler


@pytest.fixture
def settings(pooler: PgBouncer, postgres_url: str) -> Settings:
    """Settings that go through the pooler."""
    migrate.upgrade(postgres_url)
    name = psycopg.conninfo.conninfo_to_dict(postgres_url)["dbname"]
    return Settings(database={"url": pooler.url(str(name)), "pooler": True, "pool_size": 16})


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_every_kind_of_request(settings: Settings, postgres_url: str, kind: str) -> None:
    """Single statements, transactions of several, lists, searches, sweeps, leases, and times in UTC."""
    with opened(settings, kind) as manager:
        made = manager.create_session(session_id="s", title="A pooled title", metadata={"a": 1})
        assert made.created_at.utcoffset().total_seconds() == 0
        with pytest.raises(VersionConflict):
            manager.save_state("s", step=1, expected_version=9)
        assert manager.save_state("s", step=1, context={"a": [1, "ä"]}, token="t") == 2
        assert manager.save_state("s", step=1, context={"a": [1, "ä"]}, token="t") == 2
        manager.add_messages("s", [{"role": "user", "content": f"hello {i}"} for i in range(5)])
        checkpoint = manager.checkpoint("s", "here")
        assert manager.restore_checkpoint("s", checkpoint.seq) == 3
        fork = manager.fork_session("s", new_id="fork")
        assert fork.parent_id == "s"
        found = manager.list_sessions(search="POOLED", sort="session_id", order="asc").items
        assert [one.session_id for one in found] == ["fork", "s"]
        epoch = manager.acquire_lease("s", holder="me", ttl=30)
        with pytest.raises(SessionBusy):
            manager.save_state("s", step=2)
        assert epoch
        manager.suspend_session("fork")
        assert [line.trigger for line in manager.history("fork")] == ["create", "suspend"]
        if kind == "sync":
            assert [event.trigger for event in manager.watch(after="", timeout=0)] == ["create", "create", "suspend"]
        backdate(postgres_url, t.sessions, t.sessions.c.session_id == "fork", expires_at=PAST)
        assert manager.for_tenant(ALL).expire_idle().session_ids == ["fork"]
        assert manager.get_stats().total == 2
        assert manager.delete_session("fork")


def test_many_callers_on_two_connections(settings: Settings) -> None:
    """Tasks and threads write what they like in any order, batches among them, and nobody meets another's statements."""

    async def tasks() -> None:
        async with AsyncSessionManager.open(settings) as manager:

            async def work(i: int) -> None:
                await manager.create_session(session_id=f"task-{i}")
                for n in range(8):
                    await manager.save_state(f"task-{i}", step=n, context={"n": n})
                    await manager.add_message(f"task-{i}", "user", f"{i} {n}")
                state = await manager.load_state(f"task-{i}")
                assert state is not None
                assert (state.step, state.version) == (7, 9)
                assert len(await manager.get_messages(f"task-{i}")) == 8

            await asyncio.gather(*(work(i) for i in range(32)))

    asyncio.run(tasks())
    with opened(settings, "sync") as manager:

        def work(i: int) -> int:
            manager.create_session(session_id=f"thread-{i}")
            for n in range(8):
                manager.save_state(f"thread-{i}", append=[n])
                manager.suspend_session(f"thread-{i}")
                manager.resume_session(f"thread-{i}")
            return len(manager.load_state(f"thread-{i}").conversation)

        with ThreadPoolExecutor(16) as threads:
            assert list(threads.map(work, range(16))) == [8] * 16


def test_nothing_is_left_on_a_connection(settings: Settings, pooler: PgBouncer) -> None:
    """Neither a prepared statement nor a setting, on any of the connections that the pooler has."""
    with opened(settings, "sync") as manager:
        for i in range(20):
            manager.create_session(session_id=str(i))
            manager.checkpoint(str(i), "a")
    for _ in range(10):
        with psycopg.connect(settings.database.url, prepare_threshold=None) as plain:
            assert plain.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
            assert plain.execute("SHOW lock_timeout").fetchone() == ("0",)
            assert plain.execute("SHOW statement_timeout").fetchone() == ("0",)
    assert pooler.version


def test_without_the_setting_it_is_refused(settings: Settings) -> None:
    """Pgbouncer refuses the options of an ordinary connection: an error that says so, and no wrong answers."""
    plain = Settings(database=settings.database.model_dump() | {"pooler": False, "connect_timeout": 2})
    with opened(plain, "sync") as manager, pytest.raises(StorageUnavailable):
        manager.get_session("s")


def test_a_runner_works_behind_it(settings: Settings) -> None:
    """Claims, leases kept alive, saves under them, and the end."""
    with SessionManager.open(settings) as manager:
        runner = SessionRunner(settings)

        @runner.handler("job")
        def job(run: Any) -> None:
            for step in range(3):
                run.save(step=step)

        for i in range(10):
            manager.create_session(session_id=str(i), kind="job", available_at=PAST)
        runner.run(until_idle=True)
        assert manager.get_stats().by_state["completed"] == 10
