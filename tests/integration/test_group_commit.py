"""Group commit on PostgreSQL: concurrent writes share transactions, and nothing else."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from lifecycle import AsyncSessionManager, Settings, migrate
from lifecycle.drivers import postgresql_group
from lifecycle.errors import LifecycleError, StorageUnavailable, VersionConflict
from tests.conftest import POSTGRES_SETTINGS
from tests.servers import PostgresServer, find_postgres

CALLERS = 40
# Each of the two lanes takes its share of them, a half; where one alone takes all, halves of what is left, and no fewer
# than eight: 20, 10, 8 and 2.
SHARES = range(2, 5)


@asynccontextmanager
async def lanes_held(url: str, manager: AsyncSessionManager) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Both lanes are taken by writes that wait for a lock, so that what comes now queues up; call it to let them go."""
    async with await psycopg.AsyncConnection.connect(url) as other:
        for name in ("held-1", "held-2"):
            await manager.create_session(session_id=name)
        await other.execute("SELECT FROM sessions WHERE session_id LIKE 'held-%' FOR UPDATE")
        async with asyncio.TaskGroup() as group:
            for name in ("held-1", "held-2"):
                group.create_task(manager.save_state(name, step=1))
            await _until(lambda: _waiting(other, 2))
            yield other.rollback
            await other.rollback()


async def _waiting(connection: psycopg.AsyncConnection[Any], count: int) -> bool:
    cursor = await connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
    return await cursor.fetchone() == (count,)


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await holds():  # noqa: ASYNC110 -- what is waited for happens in a server
            await asyncio.sleep(0.005)


async def _transactions(url: str, table: str = "session_states", where: str = "session_id LIKE 's-%'") -> int:
    """How many transactions wrote the rows that are there."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = await connection.execute(f"SELECT count(DISTINCT xmin::text) FROM {table} WHERE {where}")
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])


async def _queued(calls: Sequence[Coroutine[Any, Any, Any]], let_go: Callable[[], Awaitable[None]]) -> list[Any]:
    """What came of calls that were all waiting when the lanes were let go."""
    tasks = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(0)
    await let_go()
    return await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes that are held up count for as long as they are: no other is opened."""
    monkeypatch.setattr(postgresql_group, "PATIENCE", 3600.0)


async def _filled(url: str, **more: Any) -> AsyncSessionManager:
    manager = AsyncSessionManager.open(Settings(database={"url": url, **more}))
    for i in range(CALLERS):
        await manager.create_session(session_id=f"s-{i:02}")
    return manager


@pytest.mark.usefixtures("patient")
def test_concurrent_writes_share_a_transaction(migrated_postgres_url: str) -> None:
    """What queues up while every lane is busy is committed by halves, one for each lane."""

    async def main() -> None:
        async with (
            await _filled(migrated_postgres_url) as manager,
            lanes_held(migrated_postgres_url, manager) as let_go,
        ):
            versions = await _queued(
                [manager.save_state(f"s-{i:02}", step=i, context={"n": i}) for i in range(CALLERS)], let_go
            )
            assert versions == [2] * CALLERS
            assert await _transactions(migrated_postgres_url) in SHARES
            for i in range(CALLERS):
                state = await manager.load_state(f"s-{i:02}")
                assert state is not None
                assert state.step == i

    asyncio.run(main())


def test_writes_one_after_the_other_are_transactions_of_their_own(migrated_postgres_url: str) -> None:
    """A single caller has no company, and does not wait for any."""

    async def main() -> None:
        async with await _filled(migrated_postgres_url) as manager:
            for i in range(5):
                await manager.save_state(f"s-{i:02}", step=i, context={"n": i})
            assert await _transactions(migrated_postgres_url) == 5

    asyncio.run(main())


@pytest.mark.usefixtures("patient")
def test_a_refusal_is_its_callers_alone(migrated_postgres_url: str) -> None:
    """Every other caller expects a wrong version; the rest is saved in the same transactions."""

    async def main() -> None:
        async with (
            await _filled(migrated_postgres_url) as manager,
            lanes_held(migrated_postgres_url, manager) as let_go,
        ):
            answers = await _queued(
                [
                    manager.save_state(f"s-{i:02}", step=i, context={"n": i}, expected_version=1 + i % 2)
                    for i in range(CALLERS)
                ],
                let_go,
            )
            assert answers[::2] == [2] * (CALLERS // 2)
            assert [type(answer) for answer in answers[1::2]] == [VersionConflict] * (CALLERS // 2)
            assert await _transactions(migrated_postgres_url) in SHARES

    asyncio.run(main())


def test_an_error_is_its_callers_alone(migrated_postgres_url: str) -> None:
    """A statement that the database refuses fails its batch, and the others are written all the same."""

    async def main() -> None:
        async with await _filled(migrated_postgres_url) as manager:
            async with await psycopg.AsyncConnection.connect(migrated_postgres_url, autocommit=True) as other:
                await other.execute(
                    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
                    " $$ BEGIN RAISE EXCEPTION 'not this one'; END $$"
                )
                await other.execute(
                    "CREATE TRIGGER refuse BEFORE INSERT ON session_states FOR EACH ROW"
                    " WHEN (new.session_id = 's-07') EXECUTE FUNCTION refuse()"
                )
            async with lanes_held(migrated_postgres_url, manager):
                answers = await asyncio.gather(
                    *(manager.save_state(f"s-{i:02}", step=i, context={"n": i}) for i in range(CALLERS)),
                    return_exceptions=True,
                )
            failed = answers.pop(7)
            assert isinstance(failed, StorageUnavailable)
            assert "not this one" in str(failed)
            assert not failed.outcome_unknown
            assert answers == [2] * (CALLERS - 1)
            unchanged = await manager.get_session("s-07")
            assert unchanged is not None
            assert unchanged.version == 1

    asyncio.run(main())


def test_a_lock_holds_up_its_caller_alone(migrated_postgres_url: str) -> None:
    """One session is locked by somebody else for as long as he likes: everybody else's write returns meanwhile."""

    async def main() -> None:
        async with (
            await _filled(migrated_postgres_url) as manager,
            await psycopg.AsyncConnection.connect(migrated_postgres_url) as other,
        ):
            await other.execute("SELECT FROM sessions WHERE session_id = 's-07' FOR UPDATE")
            async with lanes_held(migrated_postgres_url, manager):
                tasks = [asyncio.create_task(manager.save_state(f"s-{i:02}", step=i)) for i in range(CALLERS)]
                held = tasks.pop(7)
                assert await asyncio.gather(*tasks) == [2] * (CALLERS - 1)
                assert not held.done()
                await other.rollback()
                assert await held == 2

    asyncio.run(main())


def test_locks_in_every_lane_hold_up_nobody_else(migrated_postgres_url: str) -> None:
    """With as many writes held up as there are lanes, and more, all others go on for as long as there are connections."""

    async def main() -> None:
        async with (
            await _filled(migrated_postgres_url, pool_size=6) as manager,
            await psycopg.AsyncConnection.connect(migrated_postgres_url) as other,
        ):
            await other.execute("SELECT FROM sessions WHERE session_id < 's-04' AND session_id LIKE 's-%' FOR UPDATE")
            tasks = [asyncio.create_task(manager.save_state(f"s-{i:02}", step=i)) for i in range(CALLERS)]
            held, free = tasks[:4], tasks[4:]
            assert await asyncio.gather(*free) == [2] * len(free)
            for _ in range(3):
                await asyncio.gather(*(manager.save_state(f"s-{i:02}", step=i) for i in range(4, CALLERS)))
            assert not any(task.done() for task in held)
            await other.rollback()
            assert await asyncio.gather(*held) == [2] * 4

    asyncio.run(main())


def test_who_is_cancelled_takes_nobody_with_him(migrated_postgres_url: str) -> None:
    """Those that queue are not written at all when they are cancelled; their neighbours are."""

    async def main() -> None:
        async with await _filled(migrated_postgres_url) as manager, lanes_held(migrated_postgres_url, manager):
            tasks = [asyncio.create_task(manager.save_state(f"s-{i:02}", step=i)) for i in range(CALLERS)]
            await asyncio.sleep(0)
            for task in tasks[::4]:
                task.cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            for i, answer in enumerate(answers):
                if i % 4 == 0:
                    assert isinstance(answer, asyncio.CancelledError)
                else:
                    assert answer == 2
            sessions = [await manager.get_session(f"s-{i:02}") for i in range(CALLERS)]
            assert [one.version for one in sessions if one] == [1 if i % 4 == 0 else 2 for i in range(CALLERS)]

    asyncio.run(main())


def test_a_statement_that_was_forgotten_is_prepared_again(migrated_postgres_url: str) -> None:
    """A pooler that discards what is prepared costs a batch one more attempt, and nobody an error."""

    async def main() -> None:
        async with await _filled(migrated_postgres_url) as manager:
            async with lanes_held(migrated_postgres_url, manager):
                await asyncio.gather(*(manager.save_state(f"s-{i:02}", step=i) for i in range(CALLERS)))
            pool: Any = await manager._driver._opened()
            connections = [await pool.getconn() for _ in range(pool.get_stats()["pool_size"])]
            for connection in connections:
                await connection.execute("DEALLOCATE ALL")
                await pool.putconn(connection)
            for version in (3, 4):
                answers = await asyncio.gather(*(manager.save_state(f"s-{i:02}", step=i) for i in range(CALLERS)))
                assert answers == [version] * CALLERS

    asyncio.run(main())


def test_whoever_cancels_our_tasks_leaves_nobody_waiting(migrated_postgres_url: str) -> None:
    """A shutdown that cancels every task there is, ours among them: each caller is told, and the manager goes on."""

    async def main() -> None:
        async with await _filled(migrated_postgres_url, pool_size=3) as manager:
            async with lanes_held(migrated_postgres_url, manager):
                callers = [asyncio.create_task(manager.save_state(f"s-{i:02}", step=i)) for i in range(CALLERS)]
                await asyncio.sleep(0)
                own = asyncio.current_task()
                for task in asyncio.all_tasks() - {own, *callers}:
                    if "Group" in str(task.get_coro()):
                        task.cancel()
                async with asyncio.timeout(20):
                    answers = await asyncio.gather(*callers, return_exceptions=True)
                for answer in answers:
                    assert answer == 2 or (isinstance(answer, StorageUnavailable) and answer.outcome_unknown)
            async with asyncio.timeout(20):
                await asyncio.gather(*(manager.save_state(f"s-{i:02}", step=i) for i in range(CALLERS)))

    asyncio.run(main())


def test_another_event_loop_is_refused(migrated_postgres_url: str) -> None:
    """A manager's queue belongs to one loop: a second one is told so, and does not wait for ever."""
    manager = AsyncSessionManager.open(migrated_postgres_url)

    async def first() -> None:
        await manager.create_session(session_id="s")

    async def second() -> None:
        with pytest.raises(LifecycleError, match="event loop"):
            await manager.save_state("s", step=1)

    async def closed() -> None:
        async with AsyncSessionManager.open(migrated_postgres_url) as other:
            await other.save_state("s", step=1)
        with pytest.raises(LifecycleError, match="closed"):
            await other.save_state("s", step=2)

    loops = asyncio.new_event_loop(), asyncio.new_event_loop()
    with contextlib.closing(loops[0]), contextlib.closing(loops[1]):
        loops[0].run_until_complete(first())
        loops[1].run_until_complete(second())
        loops[0].run_until_complete(manager.close())
    asyncio.run(closed())


def test_large_documents_do_not_block_each_other(migrated_postgres_url: str) -> None:
    """Batches are bounded by bytes, and what is sent and what is answered may pass each other."""

    async def main() -> None:
        async with await _filled(migrated_postgres_url) as manager:
            large = "x" * 400_000
            versions = await asyncio.gather(
                *(manager.save_state(f"s-{i:02}", context={"large": large, "i": i}) for i in range(CALLERS))
            )
            assert versions == [2] * CALLERS

    asyncio.run(main())


def test_batches_never_deadlock(migrated_postgres_url: str) -> None:
    """Two managers, whose callers write to the same sessions in every order, transitions and sweeps among them."""

    async def main() -> None:
        async with (
            await _filled(migrated_postgres_url) as one,
            AsyncSessionManager.open(migrated_postgres_url) as other,
        ):

            async def work(manager: AsyncSessionManager, seed: int) -> None:
                chance = random.Random(seed)
                for _ in range(15):
                    name = f"s-{chance.randrange(CALLERS):02}"
                    match chance.randrange(4):
                        case 0:
                            await manager.save_state(name, step=1)
                        case 1:
                            await manager.add_message(name, "user", "hello")
                        case 2:
                            await manager.touch_session([f"s-{i:02}" for i in chance.sample(range(CALLERS), 10)])
                        case _:
                            await manager.acquire_lease(name, holder=f"h{seed}", ttl=0.001)

            answers = await asyncio.gather(
                *(work(manager, i) for i in range(CALLERS) for manager in (one, other)), return_exceptions=True
            )
            assert not [answer for answer in answers if answer is not None and not isinstance(answer, LifecycleError)]
            assert not [answer for answer in answers if isinstance(answer, StorageUnavailable)]
        async with await psycopg.AsyncConnection.connect(migrated_postgres_url) as connection:
            cursor = await connection.execute(
                "SELECT pg_stat_force_next_flush(), deadlocks FROM pg_stat_database WHERE datname = current_database()"
            )
            row = await cursor.fetchone()
            assert row is not None
            assert row[1] == 0

    asyncio.run(main())


@pytest.mark.parametrize("version", [15, 18])
def test_what_was_acknowledged_survives_a_kill(version: int) -> None:
    """The server is killed under a load of batches: every caller is told, and nothing that returned is lost."""

    async def main(server: PostgresServer, url: str) -> None:
        async with await _filled(url) as manager:
            acknowledged = dict.fromkeys(range(CALLERS), 0)

            async def work(i: int) -> None:
                with pytest.raises(StorageUnavailable):  # noqa: PT012 -- whichever of them it is
                    while True:
                        await manager.save_state(f"s-{i:02}", step=acknowledged[i] + 1)
                        acknowledged[i] += 1

            tasks = [asyncio.create_task(work(i)) for i in range(CALLERS)]
            await _until(lambda: _reached(acknowledged, 10))
            await asyncio.to_thread(server.kill)
            await asyncio.gather(*tasks)
            # pdeathsig: a server goes with the thread that started it.
            server.start()
        async with AsyncSessionManager.open(url) as manager:
            for i in range(CALLERS):
                state = await manager.load_state(f"s-{i:02}")
                assert state is not None
                assert acknowledged[i] <= (state.step or 0) <= acknowledged[i] + 1

    with PostgresServer(find_postgres(version), settings=POSTGRES_SETTINGS) as server:
        url = server.create_database("group")
        migrate.upgrade(url)
        asyncio.run(main(server, url))


async def _reached(counts: dict[int, int], least: int) -> bool:
    return min(counts.values()) >= least
