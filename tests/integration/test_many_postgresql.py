"""Calls for many sessions on PostgreSQL: their round trips, their locks, and a role under row-level security."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from lifecycle import AsyncSessionManager, SessionManager, SessionNotFound, Settings, VersionConflict
from lifecycle.operations import many
from lifecycle.operations.importing import create_sessions
from tests.integration.test_many_failures import KINDS, NAMES, PATIENCE, made, until, versions
from tests.integration.test_row_security import migrated_url, place, role  # noqa: F401 -- fixtures
from tests.managers import opened
from tests.wire import CountingProxy


def counted(proxy: CountingProxy, call: Callable[[], Any]) -> tuple[int, Any]:
    """How often a call waits for the server, and what it returns."""
    before = proxy.round_trips
    answer = call()
    return proxy.round_trips - before, answer


def saves(step: int = 1, **more: Any) -> list[dict[str, Any]]:
    """A save of each session."""
    return [{"session_id": name, "step": step, "context": {"step": step}, **more} for name in NAMES]


@pytest.mark.parametrize("kind", KINDS)
def test_round_trips(migrated_postgres_url: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for a transaction; one more to say why some are refused, or to see whether tokens are known."""
    made(migrated_postgres_url)
    with CountingProxy(migrated_postgres_url) as proxy, opened(proxy.settings, kind) as manager:
        manager.get_session("nobody")
        assert counted(proxy, lambda: manager.save_many(saves())) == (1, [2] * 24)
        assert counted(proxy, lambda: manager.save_many(saves(2))) == (1, [3] * 24)
        trips, outcomes = counted(proxy, lambda: manager.save_many([*saves(3), {"session_id": "none", "step": 1}] * 2))
        # A session's second save begins when its first is refused, and that asks why.
        assert (trips, outcomes[:24], outcomes[25:49]) == (4, [4] * 24, [5] * 24)
        assert [type(outcomes[24]), type(outcomes[49])] == [SessionNotFound] * 2
        trips, outcomes = counted(proxy, lambda: manager.save_many(saves(4, expected_version=1)))
        assert (trips, {type(one) for one in outcomes}) == (2, {VersionConflict})
        assert counted(proxy, lambda: manager.save_many(saves(5, token="t"))) == (2, [6] * 24)
        assert counted(proxy, lambda: manager.save_many(saves(5, token="t"))) == (1, [6] * 24)
        message = {"role": "user", "content": "hello"}
        additions = [{"session_id": name, "messages": [message] * 3} for name in NAMES]
        assert counted(proxy, lambda: manager.add_messages_many(additions))[0] == 1
        # The first of a kind is prepared.
        manager.touch_many(["none", NAMES[0]])
        assert counted(proxy, lambda: manager.touch_many(NAMES)) == (1, [True] * 24)
        assert counted(proxy, lambda: manager.touch_many([*NAMES, "none"])) == (2, [True] * 24 + [False])
        monkeypatch.setattr(many, "AT_ONCE", 8)
        assert counted(proxy, lambda: manager.save_many(saves(6))) == (3, [7] * 24)


def test_large_saves_take_transactions_of_their_own(migrated_postgres_url: str) -> None:
    """Beyond a megabyte another begins: what is sent at once is bounded, and so is how long others wait."""
    made(migrated_postgres_url)
    with SessionManager.open(Settings(database={"url": migrated_postgres_url})) as manager:
        large = [{"session_id": name, "context": {"x": "y" * 300_000}} for name in NAMES]
        assert manager.save_many(large) == [2] * 24
        manager.save_many([{"session_id": NAMES[0], "step": 1}])
    with psycopg.connect(migrated_postgres_url) as connection:
        row = connection.execute("SELECT count(DISTINCT xmin::text) FROM sessions").fetchone()
    assert row is not None
    assert row[0] > 6


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_that_is_locked_holds_up_no_other(migrated_postgres_url: str, kind: str) -> None:
    """All others are saved while somebody has it, those behind it too; it is saved once he lets go. Touches go alike."""
    made(migrated_postgres_url)
    url = migrated_postgres_url
    with (
        opened(Settings(database={"url": url}), kind) as manager,
        psycopg.connect(url) as other,
        ThreadPoolExecutor(2) as pool,
    ):
        other.execute("SELECT FROM sessions WHERE session_id = 's-07' FOR UPDATE")
        call = pool.submit(manager.save_many, saves())
        until(lambda: sum(versions(url).values()) == 2 * 23 + 1)
        touch = pool.submit(manager.touch_many, NAMES)
        until(lambda: _waiting(url) == 2)
        assert manager.save_many(saves()[8:]) == [3] * 16
        assert not call.done()
        assert not touch.done()
        other.rollback()
        assert call.result(PATIENCE) == [2] * 24
        assert touch.result(PATIENCE) == [True] * 24


def _waiting(url: str) -> int:
    with psycopg.connect(url) as connection:
        query = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
        row = connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])


def test_a_task_that_is_cancelled_leaves_whole_transactions(migrated_postgres_url: str) -> None:
    """What it was waiting for is not there, nor is it kept locked, and the manager goes on."""
    made(migrated_postgres_url)

    async def main() -> None:
        async with (
            AsyncSessionManager.open(migrated_postgres_url) as manager,
            await psycopg.AsyncConnection.connect(migrated_postgres_url) as other,
        ):
            await other.execute("SELECT FROM sessions WHERE session_id = 's-07' FOR UPDATE")
            call = asyncio.create_task(manager.save_many(saves()))
            await asyncio.to_thread(until, lambda: _waiting(migrated_postgres_url))
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await asyncio.to_thread(versions, migrated_postgres_url) == dict.fromkeys(NAMES, 1)
            await other.rollback()
            assert await manager.save_many(saves()) == [2] * 24

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_under_row_level_security(place: Any, kind: str) -> None:  # noqa: F811 -- the fixture
    """Each tenant's manager saves its own, in one round trip, and finds no other's."""
    with SessionManager.open(place.owner, "ours") as owner:
        for name in NAMES:
            owner.create_session(session_id=name)
    with CountingProxy(place.url) as proxy:
        settings = Settings(database={"url": f"{proxy.url}", "row_security": True, "notify": False})
        with opened(settings, kind) as manager:
            ours, theirs = manager.for_tenant("ours"), manager.for_tenant("theirs")
            ours.get_session("nobody")
            assert counted(proxy, lambda: ours.save_many(saves())) == (1, [2] * 24)
            ours.touch_many(NAMES)
            assert {type(one) for one in theirs.save_many(saves())} == {SessionNotFound}
            assert counted(proxy, lambda: ours.touch_many(NAMES)) == (1, [True] * 24)
            assert theirs.touch_many(NAMES) == [False] * 24


@pytest.mark.parametrize("kind", KINDS)
def test_as_behind_a_pooler(migrated_postgres_url: str, kind: str) -> None:
    """Without statements that are kept by name it is one round trip, too."""
    made(migrated_postgres_url)
    with CountingProxy(migrated_postgres_url) as proxy:
        settings = Settings(database={"url": proxy.url, "pooler": True, "notify": False})
        with opened(settings, kind) as manager:
            manager.get_session("nobody")
            assert counted(proxy, lambda: manager.save_many(saves())) == (1, [2] * 24)


def imports(names: Sequence[str]) -> list[Any]:
    """Sessions to be made, every other one with a message."""
    message = {"role": "user", "content": "hello", "message_id": "m"}
    return [({"session_id": name}, [message] if int(name[2:]) % 2 else []) for name in names]


def test_sessions_that_are_made_by_the_hundred(migrated_postgres_url: str) -> None:
    """All creations are one round trip, and so are the messages of those that are new; the rest is the transaction's."""
    with CountingProxy(migrated_postgres_url) as proxy, SessionManager.open(proxy.settings) as manager:

        def create(names: Sequence[str]) -> list[bool]:
            made: list[bool] = manager._driver.run(create_sessions(manager._context, imports(names)))
            return made

        # The first of a kind is prepared.
        create(["s-98", "s-99"])
        assert counted(proxy, lambda: create(NAMES[:12])) == (6, [True] * 12)
        assert counted(proxy, lambda: create(NAMES)) == (6, [False] * 12 + [True] * 12)
        assert [manager.get_session(name).message_count for name in NAMES] == [0, 1] * 12  # type: ignore[union-attr]


def test_sessions_that_are_made_by_the_hundred_async(migrated_postgres_url: str) -> None:
    """The async driver sends them alike."""

    async def main(proxy: CountingProxy) -> None:
        async with AsyncSessionManager.open(proxy.settings) as manager:
            await manager._driver.run(create_sessions(manager._context, imports(["s-98", "s-99"])))
            before = proxy.round_trips
            made = await manager._driver.run(create_sessions(manager._context, imports(NAMES)))
            assert (made, proxy.round_trips - before) == ([True] * 24, 6)

    with CountingProxy(migrated_postgres_url) as proxy:
        asyncio.run(main(proxy))
