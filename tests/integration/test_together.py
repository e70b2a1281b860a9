"""Several calls in one transaction, and clearing the messages of a session, on every store, sync and async."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lifecycle import (
    InvalidArgument,
    InvalidTransition,
    LeaseLost,
    LifecycleError,
    LimitExceeded,
    MessageExists,
    NotSerializable,
    SessionBusy,
    SessionExists,
    SessionManager,
    SessionNotFound,
    VersionConflict,
)
from tests.wire import CountingProxy

Call = tuple[str, dict[str, Any]]


def save(session_id: str, context: Any, **more: Any) -> Call:
    """A save of a context."""
    return "save_state", {"session_id": session_id, "context": context, **more}


def say(session_id: str, text: str, **more: Any) -> Call:
    """A message."""
    return "add_message", {"session_id": session_id, "role": "user", "content": text, **more}


def told(manager: Any, *names: str) -> dict[str, Any]:
    """Of each session: its version, its saved context and its messages."""
    found = {}
    for name in names:
        session, state = manager.get_session(name), manager.load_state(name, any_state=True)
        found[name] = (
            None
            if session is None
            else (session.version, state and state.context, [one.content for one in manager.get_messages(name)])
        )
    return found


def test_all_calls_are_made_and_each_returns_what_it_does(manager: Any) -> None:
    """Saves and messages of several sessions, a new session and reads, in the order in which they were given."""
    for name in ("b", "a"):
        manager.create_session(session_id=name)
    version, message, made, added, state = manager.together(
        [
            save("b", {"n": 1}, expected_version=1),
            say("b", "hello", message_id="m"),
            ("create_session", {"session_id": "c", "kind": "chat", "context": {"new": True}}),
            ("add_messages", {"session_id": "a", "messages": [{"role": "tool", "content": [i]} for i in range(3)]}),
            ("load_state", {"session_id": "b"}),
        ]
    )
    assert (version, message.content, message.message_id) == (2, "hello", "m")
    assert (made.session_id, made.version) == ("c", 1)
    assert [one.content for one in added] == [[0], [1], [2]]
    assert (state.version, state.context) == (2, {"n": 1})
    assert told(manager, "a", "b", "c") == {
        "a": (1, None, [[0], [1], [2]]),
        "b": (2, {"n": 1}, ["hello"]),
        "c": (1, {"new": True}, []),
    }


def test_what_is_expected(manager: Any) -> None:
    """Sessions at the version and in the phase that they are thought to be at, whatever their state, or who holds them."""
    manager.create_session(session_id="a", phase="draft")
    manager.create_session(session_id="b")
    manager.save_state("b", step=1)
    manager.acquire_lease("b", holder="another", ttl=60)
    manager.create_session(session_id="c")
    manager.end_session("c")
    expected = [
        ("expect_session", {"session_id": "a", "version": 1, "phase": "draft"}),
        ("expect_session", {"session_id": "b", "version": 2, "phase": None}),
        ("expect_session", {"session_id": "c", "version": 2, "phase": None}),
    ]
    assert manager.together([*expected, save("a", {"n": 1})]) == [True, True, True, 2]
    assert manager.together(expected[1:]) == [True, True]


def test_nothing_is_nothing(manager: Any) -> None:
    """No calls, and calls that have nothing to do, ask nothing of the database."""
    assert manager.together([]) == []
    assert manager.together([("add_messages", {"session_id": "nobody", "messages": []})]) == [[]]


REFUSALS: dict[str, tuple[Call, type[LifecycleError]]] = {
    "version": (save("b", {"late": 1}, expected_version=7), VersionConflict),
    "missing": (save("nobody", {"late": 1}), SessionNotFound),
    "hidden": (save("hidden", {"late": 1}), SessionNotFound),
    "suspended": (save("suspended", {"late": 1}), InvalidTransition),
    "ended": (say("ended", "late"), InvalidTransition),
    "held": (save("held", {"late": 1}), SessionBusy),
    "held, message": (say("held", "late"), SessionBusy),
    "taken id": (say("b", "late", message_id="taken"), MessageExists),
    "another version": (("expect_session", {"session_id": "b", "version": 7, "phase": None}), VersionConflict),
    "another phase": (("expect_session", {"session_id": "b", "version": 1, "phase": "draft"}), VersionConflict),
    "not there": (("expect_session", {"session_id": "nobody", "version": 1, "phase": None}), SessionNotFound),
    "not to be seen": (("expect_session", {"session_id": "hidden", "version": 1, "phase": None}), SessionNotFound),
    "there": (("create_session", {"session_id": "b"}), SessionExists),
    "there, hidden": (("create_session", {"session_id": "hidden"}), SessionExists),
}


@pytest.mark.parametrize("first", [False, True], ids=["last", "first"])
@pytest.mark.parametrize("reason", REFUSALS)
def test_what_is_refused_refuses_all(manager: Any, reason: str, first: bool) -> None:
    """Whatever the reason and the place, the error is that of the one call, and no call was made."""
    for name in ("a", "b", "suspended", "ended", "held", "hidden", "z"):
        manager.create_session(session_id=name)
    manager.add_message("b", "user", "there", message_id="taken")
    manager.suspend_session("suspended")
    manager.end_session("ended")
    manager.acquire_lease("held", holder="another", ttl=60)
    manager.delete_session("hidden", soft=True)
    before = told(manager, "a", "b", "z", "held", "ended", "suspended")
    call, error = REFUSALS[reason]
    others = [save("a", {"n": 1}, expected_version=1), say("a", "hello"), save("z", {"n": 1}), say("z", "hello")]
    with pytest.raises(error):
        manager.together([call, *others] if first else [*others, call])
    assert told(manager, "a", "b", "z", "held", "ended", "suspended") == before


def test_under_a_lease(manager: Any) -> None:
    """Who holds the session saves and adds; a lease that is another's by now refuses all."""
    for name in ("a", "b"):
        manager.create_session(session_id=name)
    with manager.lease("a", ttl=60) as lease:
        manager.together([save("a", {"n": 1}, lease=lease), say("a", "hello", lease=lease), save("b", {"n": 1})])
        before = told(manager, "a", "b")
        assert before == {"a": (2, {"n": 1}, ["hello"]), "b": (2, {"n": 1}, [])}
        manager.suspend_session("a")  # an operator's, which ends the lease
        manager.resume_session("a")
        with pytest.raises(LeaseLost):
            manager.together([save("b", {"n": 2}), say("a", "late", lease=lease)])
    assert told(manager, "b") == {"b": before["b"]}


def test_several_reads(manager: Any) -> None:
    """States, sessions and messages, and None for what is not there."""
    manager.create_session(session_id="a", context={"n": 1})
    for i in range(5):
        manager.add_message("a", "user", str(i))
    state, nothing, session, some = manager.together(
        [
            ("load_state", {"session_id": "a"}),
            ("load_state", {"session_id": "nobody"}),
            ("get_session", {"session_id": "a"}),
            ("get_messages", {"session_id": "a", "before": 2**63 - 1, "limit": 2}),
        ]
    )
    assert (state.context, nothing, session.message_count) == ({"n": 1}, None, 5)
    assert [one.content for one in some] == ["3", "4"]


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "unknown": (("delete_session", {"session_id": "a"}), InvalidArgument, "'delete_session' is not one of"),
    "shape": ("save_state", InvalidArgument, r"calls\[0\] must be the name of a method and its arguments"),
    "arguments": (("save_state", ["a"]), InvalidArgument, "must be a mapping"),
    "argument": (("save_state", {"session_id": "a", "colour": 1}), InvalidArgument, "colour"),
    "token": (save("a", 1, token="t"), InvalidArgument, "no token together"),
    "conversation": (save("a", 1, conversation=[]), InvalidArgument, "no conversation together"),
    "value": (save("a", {"x": object()}), NotSerializable, r"context\.x"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_call(what: str) -> None:
    """A call that cannot be made is refused before anything is asked, and the error says which and why."""
    call, error, says = BAD[what]
    with SessionManager.open("sqlite://") as manager:
        manager.create_session(session_id="a")
        with pytest.raises(error, match=says):
            manager.together([call])
        with pytest.raises(LimitExceeded):
            manager.together([save("a", 1)] * 101)


def test_one_round_trip(migrated_postgres_url: str) -> None:
    """Writes of several sessions and reads of several are a pipeline each; only a refusal asks more often."""
    with CountingProxy(migrated_postgres_url) as proxy, SessionManager.open(proxy.settings) as manager:
        for name in ("a", "b"):
            manager.create_session(session_id=name)

        def counted(calls: list[Call]) -> int:
            before = proxy.round_trips
            manager.together(calls)
            return proxy.round_trips - before

        def writes(i: int) -> list[Call]:
            return [save("a", {"i": i}, expected_version=1 + i), say("a", "hello"), save("b", {"i": i}), say("b", "hi")]

        reads = [("load_state", {"session_id": name}) for name in ("a", "b")]
        counted(writes(0))
        counted(reads)
        assert (counted(writes(1)), counted(reads)) == (1, 1)
        manager.get_messages("a", limit=1)
        before = proxy.round_trips
        manager.get_messages("a", limit=1)
        assert proxy.round_trips - before == 1


def test_writers_of_the_same_sessions_in_opposite_order(manager: Any) -> None:
    """Nobody waits for another in a circle, and every counted step of both sessions is there."""
    for name in ("a", "b"):
        manager.create_session(session_id=name, context={"n": 0})
    rounds, writers = 20, 4
    ready = threading.Barrier(writers)

    def write(number: int) -> int:
        names = ["a", "b"] if number % 2 else ["b", "a"]
        ready.wait()
        done = 0
        while done < rounds:
            states = manager.together([("load_state", {"session_id": name}) for name in names])
            try:
                manager.together(
                    [
                        save(name, {"n": state.context["n"] + 1}, expected_version=state.version)
                        for name, state in zip(names, states, strict=True)
                    ]
                )
            except VersionConflict:
                continue
            done += 1
        return done

    with ThreadPoolExecutor(writers) as pool:
        assert sum(pool.map(write, range(writers))) == rounds * writers
    assert told(manager, "a", "b") == {name: (1 + rounds * writers, {"n": rounds * writers}, []) for name in ("a", "b")}


def test_clearing_removes_all_messages_and_nothing_else(manager: Any) -> None:
    """The number comes back; state, title and lease stay, and what comes next has later numbers."""
    manager.create_session(session_id="a", context={"n": 1})
    for i in range(3):
        manager.add_message("a", "user", f"text {i}")
    last = manager.get_messages("a")[-1].seq
    with manager.lease("a", ttl=60) as lease:
        with pytest.raises(SessionBusy):
            manager.clear_messages("a")
        assert manager.clear_messages("a", lease=lease) == 3
        assert manager.clear_messages("a", lease=lease) == 0
    session = manager.get_session("a")
    assert (session.message_count, session.title) == (0, "text 0")
    assert told(manager, "a") == {"a": (1, {"n": 1}, [])}
    assert manager.add_message("a", "user", "next").seq > last
    manager.end_session("a")
    with pytest.raises(InvalidTransition):
        manager.clear_messages("a")
    with pytest.raises(SessionNotFound):
        manager.clear_messages("nobody")


def test_clearing_and_adding_at_once_count_right(manager: Any) -> None:
    """Whatever the order, the count is that of the messages that are there."""
    manager.create_session(session_id="a")
    added = 30
    cleared: list[int] = []

    def add() -> None:
        for i in range(added):
            manager.add_message("a", "user", str(i))

    def clear() -> None:
        cleared.extend(manager.clear_messages("a") for _ in range(10))

    with ThreadPoolExecutor(2) as pool:
        for work in [pool.submit(add), pool.submit(clear)]:
            work.result()
    left = manager.get_messages("a")
    assert manager.get_session("a").message_count == len(left) == added - sum(cleared)
