"""How often a client waits for PostgreSQL: once for each hot operation, counted on the wire."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lifecycle import AsyncSessionManager, SessionManager, SessionNotFound
from tests.wire import CountingProxy

Call = Callable[[Any, int], Any]

HOT: dict[str, Call] = {
    "create_session": lambda manager, i: manager.create_session(session_id=f"new{i}", title="A title"),
    "create_session without an id": lambda manager, _: manager.create_session(),
    "create_session with a state": lambda manager, i: manager.create_session(session_id=f"state{i}", context={"a": 1}),
    "get_session": lambda manager, _: manager.get_session("a"),
    "get_session of none": lambda manager, _: manager.get_session("nobody"),
    "open_session": lambda manager, _: manager.open_session("a"),
    "save_state": lambda manager, i: manager.save_state("a", step=i, context={"i": i}, plan=[i], conversation=[i]),
    "save_state, append": lambda manager, i: manager.save_state("a", append=[i]),
    "save_state, version": lambda manager, i: manager.save_state("versioned", step=i, expected_version=1 + i),
    "save_state, token": lambda manager, i: manager.save_state("a", step=i, token=f"token{i}"),
    "load_state": lambda manager, _: manager.load_state("a"),
    "load_state of any": lambda manager, _: manager.load_state("a", any_state=True),
    "add_message": lambda manager, _: manager.add_message("a", "assistant", "hello"),
    "add_message of a user": lambda manager, _: manager.add_message("a", "user", "hello"),
    "add_messages": lambda manager, _: manager.add_messages("a", [{"role": "tool", "content": [1]}] * 50),
    "touch_session": lambda manager, _: manager.touch_session("a"),
    "touch_session of many": lambda manager, _: manager.touch_session(["b", "a", "nobody"]),
}
# (call that brings the session there, the one that is counted)
MOVES: dict[str, str] = {
    "suspend": "",
    "resume": "suspend",
    "complete": "",
    "end": "suspend",
    "expire": "",
    "reopen": "expire",
}


def test_every_hot_operation_is_one_round_trip(migrated_postgres_url: str) -> None:
    """The first call on a connection, which prepares the statement with it, as much as each one after it."""
    with CountingProxy(migrated_postgres_url) as proxy, SessionManager.open(proxy.settings) as manager:
        for name in ("a", "b", "versioned"):
            manager.create_session(session_id=name)
        counted = {}
        for name, call in HOT.items():
            before = proxy.round_trips
            call(manager, 0)
            call(manager, 1)
            counted[name] = proxy.round_trips - before
    assert counted == dict.fromkeys(HOT, 2)


def test_every_hot_operation_is_one_round_trip_async(migrated_postgres_url: str) -> None:
    """The async manager asks no more often."""

    async def count(proxy: CountingProxy) -> dict[str, int]:
        counted = {}
        async with AsyncSessionManager.open(proxy.settings) as manager:
            for name in ("a", "b", "versioned"):
                await manager.create_session(session_id=name)
            for name, call in HOT.items():
                before = proxy.round_trips
                await call(manager, 0)
                await call(manager, 1)
                counted[name] = proxy.round_trips - before
        return counted

    with CountingProxy(migrated_postgres_url) as proxy:
        assert asyncio.run(count(proxy)) == dict.fromkeys(HOT, 2)


def test_a_state_that_is_not_plain_any_more(migrated_postgres_url: str) -> None:
    """What was read as a plain one, and is cut up since, is read once more; then it is known."""
    large = {"notes": {str(i): f"{i} " * 2000 for i in range(8)}}
    with CountingProxy(migrated_postgres_url) as proxy, SessionManager.open(proxy.settings) as manager:
        manager.create_session(session_id="s")
        checkpoints = []
        for context in (large, {}):
            manager.save_state("s", context=context, append=[1])
            checkpoints.append(manager.checkpoint("s", "here").seq)
        counted = []
        for seq, context in zip(checkpoints, (large, {}), strict=True):
            for _ in range(2):
                before = proxy.round_trips
                state = manager.load_state("s")
                counted.append(proxy.round_trips - before)
            manager.restore_checkpoint("s", seq)
            for _ in range(3):
                before = proxy.round_trips
                state = manager.load_state("s")
                counted.append(proxy.round_trips - before)
                assert state is not None
                assert state.context == context
    assert counted == [1, 1, 2, 1, 1] + [1] * 5


def test_the_shape_of_a_state_that_this_process_saved(migrated_postgres_url: str) -> None:
    """It is known: each load asks once, whatever was saved before it."""
    large = {"notes": {str(i): f"{i} " * 2000 for i in range(8)}}
    saves: list[dict[str, Any]] = [
        {"context": {}}, {"append": [1]}, {"step": 2}, {"context": large}, {"context": {}}, {"append": [2, 3]},
        {"conversation": [1, 2, 3, 4]},
    ]  # fmt: skip
    with CountingProxy(migrated_postgres_url) as proxy, SessionManager.open(proxy.settings) as manager:
        manager.create_session(session_id="s")
        for save in saves:
            manager.save_state("s", **save)
            for _ in range(2):
                before = proxy.round_trips
                assert manager.load_state("s") is not None
                assert proxy.round_trips - before == 1


@pytest.mark.parametrize("trigger", MOVES)
def test_every_transition_is_one_round_trip(migrated_postgres_url: str, trigger: str) -> None:
    """A transition that is allowed asks once; one that is not asks a second time, why."""
    with CountingProxy(migrated_postgres_url) as proxy, SessionManager.open(proxy.settings) as manager:
        fire = getattr(manager, f"{trigger}_session")
        for session_id in ("first", "second"):
            manager.create_session(session_id=session_id)
            if MOVES[trigger]:
                getattr(manager, f"{MOVES[trigger]}_session")(session_id)
        fire("first")
        manager.get_session("first")
        before = proxy.round_trips
        fire("second", reason="why", actor="who")
        assert proxy.round_trips - before == 1
        before = proxy.round_trips
        with pytest.raises(SessionNotFound):
            fire("nobody")
        assert proxy.round_trips - before == 2


def test_the_proxy_counts(migrated_postgres_url: str) -> None:
    """A checkpoint takes a transaction of several statements: the count would show a second one."""
    with CountingProxy(migrated_postgres_url) as proxy, SessionManager.open(proxy.settings) as manager:
        manager.create_session(session_id="a", context={"a": 1})
        manager.checkpoint("a", "first")
        before = proxy.round_trips
        manager.checkpoint("a", "second")
        assert proxy.round_trips - before > 2
