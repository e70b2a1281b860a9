"""Many sessions in one call: saved, touched and added to on every store, sync and async, as if one by one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lifecycle import (
    ALL,
    InvalidArgument,
    InvalidTransition,
    LeaseLost,
    LifecycleError,
    LimitExceeded,
    MessageExists,
    NotSerializable,
    SessionBusy,
    SessionNotFound,
    TokenReused,
    VersionConflict,
)
from lifecycle.models import tables as t
from lifecycle.operations import lifecycle, many
from tests.managers import backdate

PAST = datetime.now(UTC) - timedelta(days=400)
LATE = datetime.now(UTC) - timedelta(minutes=1)


def made(manager: Any, *names: str) -> None:
    """Sessions by these names."""
    for name in names:
        manager.create_session(session_id=name)


def outcome(call: Any) -> Any:
    """What a call returns, or the error that it raises."""
    try:
        return call()
    except LifecycleError as error:
        return error


def kinds(outcomes: list[Any]) -> list[Any]:
    """The outcomes, of errors their types."""
    return [type(one) if isinstance(one, Exception) else one for one in outcomes]


def told(one: Any, prefix: str) -> Any:
    """An outcome without what differs between two sets of sessions that are alike: their prefix, and times."""
    if not isinstance(one, Exception):
        return one
    return type(one), str(one).split(" until ")[0].replace(repr(prefix)[1:-1], "")


def test_each_save_is_answered_as_if_it_were_alone(manager: Any, migrated_url: str) -> None:
    """Every refusal that there is among saves that are made: each the same error as `save_state` raises on its own."""

    def prepare(prefix: str) -> list[dict[str, Any]]:
        names = (
            "plain", "suspended", "gone", "stale", "lost", "busy", "held", "token", "reused", "bad", "large", "both", "unknown",
            "last", "ended", "deleted", "edited",
        )  # fmt: skip
        ids = {name: prefix + name for name in names}
        made(manager, *(session_id for name, session_id in ids.items() if name != "unknown"))
        manager.suspend_session(ids["suspended"])
        manager.end_session(ids["ended"])
        manager.delete_session(ids["deleted"], soft=True)
        manager.delete_session(ids["gone"])
        manager.save_state(ids["stale"], step=1)
        manager.save_state(ids["token"], step=1, token="t")
        manager.save_state(ids["reused"], step=1, token="t")
        manager.save_state(ids["edited"], conversation=[{"n": 1}, {"n": 2}, {"n": 3}])
        old = leased[prefix + "lost"] = manager.lease(ids["lost"], holder="old")
        held = leased[prefix + "held"] = manager.lease(ids["held"], holder="me")
        busy = leased[prefix + "busy"] = manager.lease(ids["busy"], holder="other")
        lost = old.__enter__()
        backdate(migrated_url, t.sessions, t.sessions.c.session_id == ids["lost"], lease_expires_at=LATE)
        taken = leased[prefix + "new"] = manager.lease(ids["lost"], holder="new")
        taken.__enter__()
        busy.__enter__()
        mine = held.__enter__()
        return [
            {"session_id": ids["plain"], "step": 1, "context": {"a": [1, "é"]}, "phase": "p", "plan": ["x"]},
            {"session_id": ids["suspended"], "step": 1},
            {"session_id": ids["gone"], "step": 1},
            {"session_id": ids["stale"], "step": 2, "expected_version": 1},
            {"session_id": ids["lost"], "step": 1, "lease": lost},
            {"session_id": ids["busy"], "step": 1},
            {"session_id": ids["held"], "append": [{"n": 1}], "lease": mine},
            {"session_id": ids["token"], "step": 1, "token": "t"},
            {"session_id": ids["reused"], "step": 2, "token": "t"},
            {"session_id": ids["bad"], "context": {"a": [float("nan")]}},
            {"session_id": ids["bad"], "context": {1: 2}},
            {"session_id": ids["large"], "context": {"x": "y" * 17_000_000}},
            {"session_id": ids["both"], "conversation": [], "append": [1]},
            {"session_id": ids["bad"], "step": "three"},
            {"session_id": ids["unknown"], "step": 1},
            {"session_id": ids["ended"], "step": 1},
            {"session_id": ids["deleted"], "step": 1},
            {"session_id": ids["edited"], "conversation": [{"n": 1}, {"n": 9}]},
            {"session_id": ids["last"], "step": 1, "token": "new", "expected_version": 1},
            {"session_id": "", "step": 1},
            {"session_id": 5, "step": 1},
        ]  # fmt: skip

    leased: dict[str, Any] = {}
    together, alone = prepare("m-"), prepare("o-")
    outcomes = manager.save_many(together)
    expected = [outcome(lambda item=item: manager.save_state(**item)) for item in alone]
    for lease in leased.values():
        lease.__exit__(None, None, None)
    assert kinds(outcomes) == [
        2, InvalidTransition, SessionNotFound, VersionConflict, LeaseLost, SessionBusy, 2, 2, TokenReused, NotSerializable,
        NotSerializable, LimitExceeded, InvalidArgument, InvalidArgument, SessionNotFound, InvalidTransition,
        SessionNotFound, 3, 2, InvalidArgument, InvalidArgument,
    ]  # fmt: skip
    assert [told(one, "m-") for one in outcomes] == [told(one, "o-") for one in expected]
    for one, other in zip(together, alone, strict=True):
        if one["session_id"]:
            ours, theirs = (manager.load_state(str(item["session_id"]), any_state=True) for item in (one, other))
            different = {"session_id", "saved_at"}
            assert (ours and ours.model_dump(exclude=different)) == (theirs and theirs.model_dump(exclude=different))


def test_saves_of_one_session_are_made_in_the_order_given(manager: Any) -> None:
    """Each on top of the one before it, whatever stands between them, refusals and repeated tokens included."""
    made(manager, "a", "b")
    saves = [
        {"session_id": "b", "append": [1], "expected_version": 1},
        {"session_id": "a", "append": ["x"], "token": "one"},
        {"session_id": "b", "append": [2], "expected_version": 2},
        {"session_id": "b", "append": [9], "expected_version": 2},
        {"session_id": "a", "append": ["x"], "token": "one"},
        {"session_id": "b", "conversation": [0, 1, 2], "step": 1},
        {"session_id": "a", "append": ["y"], "token": "one"},
        {"session_id": "b", "append": [3]},
    ]
    assert kinds(manager.save_many(saves)) == [2, 2, 3, VersionConflict, 2, 4, TokenReused, 5]
    assert manager.load_state("b").conversation == [0, 1, 2, 3]
    assert manager.load_state("a").conversation == ["x"]


def test_a_call_with_tokens_is_safe_to_repeat(manager: Any) -> None:
    """As it was, or with more in it: what was saved is not saved again, and its version is the one that it had."""
    names = [f"s{i:02}" for i in range(20)]
    made(manager, *names)
    saves = [{"session_id": name, "append": [name], "token": f"t-{name}"} for name in names]
    assert manager.save_many(saves[:15]) == [2] * 15
    manager.save_state("s03", append=["later"])
    assert manager.save_many(saves) == [2] * 20
    assert manager.load_state("s03").conversation == ["s03", "later"]
    assert manager.load_state("s19").conversation == ["s19"]
    assert manager.get_session("s04").version == 2


def test_conversations_of_which_any_part_was_changed(manager: Any) -> None:
    """Rewritten at the beginning, shortened by much, emptied: each is saved, beside others, and a repeat finds it."""
    long = [{"n": n} for n in range(40)]
    wanted = {
        "added": [*long, "x"],
        "begun": ["new", *long[1:]],
        "cut": long[:3],
        "emptied": [],
        "slid": [*long[20:], "x"],
    }
    made(manager, *wanted, "plain", "stale", "done")
    for name in (*wanted, "stale", "done"):
        manager.save_state(name, conversation=long)
    manager.complete_session("done")
    saves: list[dict[str, Any]] = [
        {"session_id": name, "conversation": conversation, "token": "t"} for name, conversation in wanted.items()
    ]
    saves += [
        {"session_id": "plain", "step": 1},
        {"session_id": "stale", "conversation": ["new"], "expected_version": 1},
        {"session_id": "done", "conversation": ["new"]},
        {"session_id": "cut", "append": ["y"], "expected_version": 3},
    ]
    assert kinds(manager.save_many(saves)) == [3, 3, 3, 3, 3, 2, VersionConflict, InvalidTransition, 4]
    assert manager.save_many(saves[:5]) == [3] * 5
    wanted |= {"cut": [*long[:3], "y"], "stale": long, "done": long}
    assert {name: manager.load_state(name, any_state=True).conversation for name in wanted} == wanted


def test_more_than_one_transaction_holds(manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcomes are in the order given, however many sessions there are, and whatever order they come in."""
    monkeypatch.setattr(many, "AT_ONCE", 8)
    names = [f"s{(i * 7) % 23:02}" for i in range(23)]
    made(manager, *names)
    saves = [{"session_id": name, "step": int(name[1:])} for name in names]
    saves.insert(9, {"session_id": "nobody", "step": 1})
    outcomes = manager.save_many(saves)
    assert kinds([outcomes.pop(9)]) == [SessionNotFound]
    assert outcomes == [2] * 23
    assert [manager.load_state(name).step for name in names] == [int(name[1:]) for name in names]
    assert manager.save_many([]) == []


@pytest.mark.parametrize(
    ("saves", "says"),
    [
        ("a", "saves must be a list of mappings, not str"),
        ({"a": {"step": 1}}, "saves must be a list of mappings, not dict"),
        ([("a", 1)], r"saves\[0\] must be a mapping, not tuple"),
        ([{"session_id": "a", "step": 1}, {"step": 1}], r"saves\[1\] needs 'session_id'"),
        ([{"session_id": "a", "step": 1}, {"session_id": "a", "contxt": 1}], r"saves\[1\] has 'contxt', and takes session_id, c"),
    ],
)  # fmt: skip
def test_what_is_no_item_is_refused_before_anything_is_saved(manager: Any, saves: Any, says: str) -> None:
    """A mistake of the program's, and not of one item's values."""
    made(manager, "a")
    with pytest.raises(InvalidArgument, match=says):
        manager.save_many(saves)
    assert manager.get_session("a").version == 1
    with pytest.raises(InvalidArgument, match="for_tenant"):
        manager.for_tenant(ALL).save_many([{"session_id": "a", "step": 1}])


def test_messages_of_many_sessions(manager: Any) -> None:
    """Each session's are all added or none, and what speaks against one is its own; with ids, a repeat adds nothing."""
    made(manager, "a", "b", "c", "done", "held")
    manager.complete_session("done")
    manager.add_message("c", "user", "other", message_id="c2")

    def additions(lease: Any) -> list[dict[str, Any]]:
        def two(name: str) -> list[dict[str, Any]]:
            return [{"role": "user", "content": f"{name} {i}", "message_id": f"{name}{i}"} for i in (1, 2)]

        return [
            {"session_id": "b", "messages": two("b")},
            {"session_id": "done", "messages": two("done")},
            {"session_id": "a", "messages": two("a")},
            {"session_id": "none", "messages": two("none")},
            {"session_id": "c", "messages": two("c")},
            {"session_id": "a", "messages": []},
            {"session_id": "held", "messages": two("held"), "lease": lease},
            {"session_id": "a", "messages": [{"role": "tool", "content": [1], "message_id": "a3"}]},
            {"session_id": "b", "messages": [{"role": "user"}]},
        ]

    with manager.lease("held") as lease:
        first = manager.add_messages_many(additions(lease))
        again = manager.add_messages_many(additions(lease))
    shape = [
        ["b1", "b2"], InvalidTransition, ["a1", "a2"], SessionNotFound, MessageExists, [], ["held1", "held2"], ["a3"],
        InvalidArgument,
    ]  # fmt: skip
    for outcomes in (first, again):
        assert [
            one if isinstance(one, type) else [message.message_id for message in one] for one in kinds(outcomes)
        ] == shape
    assert [message.content for message in manager.get_messages("a")] == ["a 1", "a 2", [1]]
    assert [message.content for message in manager.get_messages("c")] == ["other"]
    assert manager.get_session("b").title == "b 1"
    assert again[0] == first[0] == manager.get_messages("b")


def test_a_sign_of_life_of_many(manager: Any, migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each, in the order given, whether it is live; of those that are, the deadline moves, and of no others."""
    monkeypatch.setattr(lifecycle, "_TOUCHED_AT_ONCE", 25)
    names = [f"s{i:02}" for i in range(60)]
    for name in names:
        manager.create_session(session_id=name, idle_timeout=60 if name < "s03" else None)
    manager.suspend_session("s01")
    manager.complete_session("s02")
    manager.delete_session("s05", soft=True)
    backdate(migrated_url, t.sessions, last_active_at=PAST, expires_at=PAST)
    asked = ["nobody", *reversed(names), "s00", "s02"]
    dead = {"nobody", "s02", "s05"}
    assert manager.touch_many(asked) == [name not in dead for name in asked]
    for name in ("s00", "s01", "s04", "s59"):
        session = manager.get_session(name)
        assert session.last_active_at > PAST + timedelta(days=399)
        assert session.expires_at > session.last_active_at
    assert manager.get_session("s02").last_active_at == PAST
    assert manager.touch_many([]) == []
    with pytest.raises(InvalidArgument, match="must be a list of ids, as in"):
        manager.touch_many("s00")
    with pytest.raises(InvalidArgument, match=r"session_ids\[1\]"):
        manager.touch_many(["s00", 5])
