"""What the dashboard reads, on every store: what is stuck, what happened last, a checkpoint's documents, everybody's list."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lifecycle import ALL, CheckpointNotFound, InvalidArgument, SessionManager
from lifecycle.models import tables as t
from lifecycle.recipes import postgresql_lists
from tests.managers import backdate

PAST = datetime.now(UTC) - timedelta(hours=1)


def reasons(manager: Any, **options: Any) -> dict[str, list[str]]:
    """The ids of stuck sessions by reason."""
    found: dict[str, list[str]] = {}
    for one in manager.list_stuck(**options):
        found.setdefault(one.why, []).append(one.session.session_id)
    return found


def test_what_is_stuck(manager: Any, migrated_url: str) -> None:
    """For each reason those that it holds for, the longest stuck first; what goes on, ended or is another's is none."""
    for name in (
        "silent",
        "silent longer",
        "beats",
        "due",
        "due later",
        "suspended",
        "often",
        "once",
        "ended",
        "hidden",
    ):
        manager.create_session(session_id=name, kind="work")
    for name in ("silent", "silent longer", "beats"):
        manager.acquire_lease(name, holder="worker", ttl=300)
    manager.suspend_session("suspended")
    manager.complete_session("ended")
    manager.delete_session("hidden", soft=True)
    c = t.sessions.c
    backdate(migrated_url, t.sessions, c.session_id == "silent", lease_expires_at=PAST)
    backdate(migrated_url, t.sessions, c.session_id == "silent longer", lease_expires_at=PAST - timedelta(hours=1))
    backdate(migrated_url, t.sessions, c.session_id.in_(["due", "suspended", "hidden"]), available_at=PAST)
    backdate(migrated_url, t.sessions, c.session_id == "due later", available_at=datetime.now(UTC) + timedelta(hours=1))
    backdate(migrated_url, t.sessions, c.session_id.in_(["often", "ended"]), rescues=2)
    backdate(migrated_url, t.sessions, c.session_id == "once", rescues=1)
    expected = {
        "held but silent": ["silent longer", "silent"], "due but unclaimed": ["due"], "rescued often": ["often"],
    }  # fmt: skip
    assert reasons(manager) == expected
    assert reasons(manager, limit=1)["held but silent"] == ["silent longer"]
    assert reasons(manager, silent_for="90m") == {"held but silent": ["silent longer"], "rescued often": ["often"]}
    assert reasons(manager.for_tenant(ALL)) == expected
    assert reasons(manager.for_tenant("another")) == {}


@pytest.mark.parametrize("silent_for", ["never", "soon", 0])
def test_a_wrong_time_to_be_stuck_for(manager: Any, silent_for: Any) -> None:
    """It is named."""
    with pytest.raises(InvalidArgument, match="silent_for"):
        manager.list_stuck(silent_for=silent_for)


def test_what_happened_last(manager: Any) -> None:
    """The newest first, as many as asked for, of all sessions or one; nothing of another tenant."""
    other = manager.for_tenant("another")
    for name in ("a", "b"):
        manager.create_session(session_id=name)
        manager.suspend_session(name, reason="why", actor="who")
        other.create_session(session_id=name)
    manager.resume_session("a")
    said = [(one.session_id, one.trigger) for one in manager.recent_transitions(limit=3)]
    assert said == [("a", "resume"), ("b", "suspend"), ("b", "create")]
    last = manager.recent_transitions(session_id="b")
    assert [(one.trigger, one.reason, one.actor) for one in last] == [("suspend", "why", "who"), ("create", None, None)]
    assert {one.trigger for one in other.recent_transitions()} == {"create"}
    assert len(manager.for_tenant(ALL).recent_transitions()) == 7
    assert manager.recent_transitions(session_id="nobody") == []
    with pytest.raises(InvalidArgument, match="limit"):
        manager.recent_transitions(limit=0)


def test_a_checkpoint_with_its_documents(manager: Any) -> None:
    """They are those of the save before it, whatever was saved since; another tenant's is not found."""
    manager.create_session(session_id="s")
    manager.save_state("s", context={"n": 1e22, "z": [None]}, conversation=["hi"], plan="first", phase="one", step=1)
    seq = manager.checkpoint("s", "here", {"mine": True}).seq
    manager.save_state("s", context={}, plan=None, phase="two", step=2)
    found = manager.get_checkpoint("s", seq)
    assert (found.context, found.conversation, found.plan) == ({"n": 1e22, "z": [None]}, ["hi"], "first")
    assert (found.label, found.data, found.phase, found.step) == ("here", {"mine": True}, "one", 1)
    for asked, number in ((manager, seq + 1), (manager.for_tenant("another"), seq)):
        with pytest.raises(CheckpointNotFound):
            asked.get_checkpoint("s", number)


@pytest.mark.parametrize("most", [500, 1])
@pytest.mark.parametrize("order", ["desc", "asc"])
def test_a_list_of_all_tenants(manager: Any, migrated_url: str, monkeypatch: Any, most: int, order: str) -> None:
    """Page by page it is every session in order, with filters too, be the tenants asked one by one or together."""
    monkeypatch.setattr(postgresql_lists, "MOST", most)
    everybody = manager.for_tenant(ALL)
    for index in range(12):
        own = manager.for_tenant(("", "blue", "red")[index % 3])
        own.create_session(session_id=f"s{index:02}", user_id="ada" if index % 2 else None)
        at = PAST + timedelta(seconds=7 * ((index * 5) % 12))
        minute = at.replace(second=0, microsecond=0)
        backdate(migrated_url, t.sessions, t.sessions.c.session_id == f"s{index:02}", updated_at=at, listed_at=minute)
    with SessionManager.open(migrated_url, ALL) as plain:
        # Sorted otherwise, so by the plain statement.
        by_time = sorted(
            ((one.updated_at, one.session_id) for one in plain.list_sessions(sort="session_id", limit=100).items),
            reverse=order == "desc",
        )

    def pages(**filters: Any) -> list[str]:
        found, cursor = [], None
        while True:
            page = everybody.list_sessions(limit=5, order=order, cursor=cursor, **filters)
            found += [one.session_id for one in page.items]
            if not page.has_more:
                return found
            cursor = page.next_cursor

    ids = [session_id for _, session_id in by_time]
    assert pages() == ids
    assert pages(user_id="ada") == [one for one in ids if int(one[1:]) % 2]
    assert pages(state="completed") == []
    assert [one.session_id for one in everybody.list_sessions(limit=3, offset=4, order=order).items] == ids[4:7]
    assert pages(since=by_time[6][0]) == [one for at, one in by_time if at >= by_time[6][0]]
    assert everybody.list_sessions(limit=1, order=order, count=True).total == 12


def test_a_list_of_nobody(manager: Any) -> None:
    """An empty store has an empty list of all tenants."""
    assert manager.for_tenant(ALL).list_sessions().items == []
