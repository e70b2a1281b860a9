"""What every store must do alike: one suite on SQLite, PostgreSQL (18 and 15), MariaDB and JSONL files, sync and async."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa

from lifecycle import (
    ALL,
    ApprovalResolved,
    CheckpointNotFound,
    InvalidArgument,
    InvalidTransition,
    LifecycleError,
    LimitExceeded,
    MessageExists,
    NotSerializable,
    SessionBusy,
    SessionExists,
    SessionManager,
    SessionNotFound,
    SessionProtected,
    Settings,
    TokenReused,
    VersionConflict,
    states,
)
from lifecycle.models import tables as t
from tests.managers import backdate, connected, opened

PAST = datetime.now(UTC) - timedelta(days=400)
ODD_IDS = ["it's", 'say "hi"', "a/b\\c", "trailing ", "é😀", "x" * 255, "%_", ":p_tenant", "TRAILING "]


def test_ids_are_told_apart_to_the_last_blank(manager: Any) -> None:
    """Quotes, slashes, blanks, case and emoji are part of an id; 256 characters and nothing at all are refused."""
    for odd in [*ODD_IDS, "trailing"]:
        assert manager.create_session(session_id=odd).session_id == odd
    for odd in [*ODD_IDS, "trailing"]:
        assert manager.get_session(odd).session_id == odd
    with pytest.raises(SessionExists):
        manager.create_session(session_id="it's")
    for bad in ("x" * 256, "", "nul\0", "\ud800"):
        with pytest.raises(InvalidArgument):
            manager.create_session(session_id=bad)


def test_a_state_comes_back_as_it_was_saved(manager: Any) -> None:
    """Documents come back equal, to the sign of a zero and the order of keys; what is not passed stays."""
    manager.create_session(session_id="s")
    assert manager.load_state("s") is None
    odd = {"z": -0.0, "big": 1e22, "nul": "\0", "é": "😀", "deep": {"b": [1, 2.5, None, True], "a": {}}}
    assert manager.save_state("s", context=odd, step=3, phase="plan", plan=["x"]) == 2
    state = manager.load_state("s")
    assert repr(state.context) == repr(odd)
    assert math.copysign(1, state.context["z"]) == -1
    assert manager.save_state("s", append=[{"n": 1}]) == 3
    assert manager.save_state("s", append=[{"n": 2}, "é"]) == 4
    state = manager.load_state("s")
    assert (state.conversation, state.plan, state.step, state.phase) == ([{"n": 1}, {"n": 2}, "é"], ["x"], 3, "plan")
    with pytest.raises(NotSerializable, match=r"context\.a\[0\]"):
        manager.save_state("s", context={"a": [float("nan")]})
    assert manager.load_state("s").version == 4


def test_large_documents_and_long_conversations(manager: Any) -> None:
    """A conversation of 100,000 entries and a document of 5 MB come back; what is over the bound is refused."""
    manager.create_session(session_id="s")
    long = [{"role": "user", "n": i} for i in range(100_000)]
    manager.save_state("s", conversation=long, context={"x": "é" * 2_500_000})
    state = manager.load_state("s")
    assert state.conversation == long
    assert state.context == {"x": "é" * 2_500_000}
    with pytest.raises(LimitExceeded):
        manager.save_state("s", context={"x": "y" * 17_000_000})


@pytest.mark.parametrize("filling", ['"\\', "😀"])
def test_a_document_at_the_bound(manager: Any, filling: str) -> None:
    """16 MiB are accepted whatever has to be escaped in them, kept in a checkpoint, restored and forked."""
    bound = 16 * 1024 * 1024
    room = bound - len(json.dumps({"x": ""}, separators=(",", ":")))
    size = len(json.dumps(filling, ensure_ascii=False).encode()) - 2
    document = {"x": filling * (room // size)}
    manager.create_session(session_id="s", context=document)
    assert manager.load_state("s").context == document
    manager.save_state("s", context=document, plan=[1])
    kept = manager.checkpoint("s", "large")
    manager.save_state("s", context={}, conversation=[filling * 1_000_000])
    manager.save_state("s", append=[filling * 1_000_000])
    assert manager.load_state("s").conversation == [filling * 1_000_000] * 2
    assert manager.load_state("s").context == {}
    manager.restore_checkpoint("s", kept.seq)
    state = manager.load_state("s")
    assert (state.context, state.plan, state.conversation) == (document, [1], None)
    fork = manager.fork_session("s", new_id="fork")
    assert manager.load_state(fork.session_id).context == document


def test_a_save_on_top_of_anothers_is_refused(manager: Any) -> None:
    """An old expected_version is VersionConflict; a retry token makes a repeat safe."""
    manager.create_session(session_id="s")
    assert manager.save_state("s", step=1, expected_version=1) == 2
    with pytest.raises(VersionConflict) as caught:
        manager.save_state("s", step=2, expected_version=1)
    assert caught.value.current == 2
    assert manager.save_state("s", step=5, expected_version=2, token="t") == 3
    assert manager.save_state("s", step=5, expected_version=2, token="t") == 3
    manager.save_state("s", step=6)
    assert manager.save_state("s", step=5, expected_version=2, token="t") == 3
    assert manager.load_state("s").step == 6
    with pytest.raises(TokenReused):
        manager.save_state("s", step=7, token="t")
    with pytest.raises(SessionNotFound):
        manager.save_state("none", step=1)


@pytest.mark.parametrize("trigger", states.TRIGGERS)
def test_transitions_follow_the_table(manager: Any, trigger: str) -> None:
    """From each state a trigger does what the table says, is a no-op at its target, and is refused elsewhere."""
    ways: dict[str, list[str]] = {
        "active": [], "suspended": ["suspend"], "completed": ["complete"], "ended": ["end"], "expired": ["expire"],
    }  # fmt: skip
    for state, way in ways.items():
        session_id = manager.create_session().session_id
        for step in way:
            getattr(manager, f"{step}_session")(session_id)
        before = manager.get_session(session_id)
        assert before.state == state
        row = states.transition(trigger)
        fire = getattr(manager, f"{trigger}_session")
        if state in row.sources:
            after = fire(session_id, reason="why", actor="me")
            assert (after.state, after.version) == (row.target, before.version + 1)
            assert (after.ended_at is not None) == (after.state in states.TERMINAL)
            last = manager.history(session_id)[-1]
            assert (last.trigger, last.from_state, last.to_state) == (trigger, state, row.target)
            assert (last.reason, last.actor) == ("why", "me")
            assert after == manager.get_session(session_id)
        elif state == row.target:
            assert fire(session_id).version == before.version
        else:
            with pytest.raises(InvalidTransition, match=state):
                fire(session_id)
            assert manager.get_session(session_id) == before


def test_messages(manager: Any) -> None:
    """Messages keep their order and content; a repeat under its id is safe; pages, pop and delete do as they say."""
    manager.create_session(session_id="s")
    parts = [{"type": "text", "text": "hi\0"}, {"n": 1e22}]
    first = manager.add_message("s", "user", "Hello there", message_id="m1", metadata={"k": 1})
    assert manager.add_message("s", "user", "Hello there", message_id="m1") == first
    with pytest.raises(MessageExists):
        manager.add_message("s", "user", "something else", message_id="m1")
    rest = manager.add_messages("s", [{"role": "tool", "content": parts}, {"role": "a", "content": "a\0b"}])
    assert [m.content for m in manager.get_messages("s")] == ["Hello there", parts, "a\0b"]
    assert manager.get_messages("s") == [first, *rest]
    assert [m.seq for m in manager.get_messages("s", after=first.seq, limit=1)] == [rest[0].seq]
    assert manager.get_messages("s", before=rest[1].seq, limit=1) == [rest[0]]
    session = manager.get_session("s")
    assert (session.message_count, session.title) == (3, "Hello there")
    assert manager.pop_message("s") == rest[1]
    assert manager.delete_message("s", "m1") is True
    assert manager.delete_message("s", "m1") is False
    assert manager.get_session("s").message_count == 1
    with pytest.raises(LimitExceeded):
        manager.add_message("s", "user", "x" * 100_001)
    assert manager.add_message("s", "user", "x" * 100_000).seq > rest[1].seq
    manager.complete_session("s")
    with pytest.raises(InvalidTransition):
        manager.add_message("s", "user", "late")


def test_checkpoints_and_forks(manager: Any) -> None:
    """A checkpoint is restored as it was; a fork goes on by itself, and outlives its source."""
    manager.create_session(session_id="s", title="T")
    manager.add_message("s", "user", "one")
    manager.save_state("s", context={"n": 1}, step=1)
    kept = manager.checkpoint("s", "before", {"note": "é"})
    manager.save_state("s", context={"n": 2}, step=2)
    manager.add_message("s", "user", "two")
    assert [(c.label, c.data, c.step) for c in manager.list_checkpoints("s")] == [("before", {"note": "é"}, 1)]
    manager.restore_checkpoint("s", kept.seq)
    state = manager.load_state("s")
    assert (state.context, state.step) == ({"n": 1}, 1)
    with pytest.raises(CheckpointNotFound):
        manager.restore_checkpoint("s", 999)
    fork = manager.fork_session("s", checkpoint=kept.seq, new_id="f")
    assert fork.parent_id == "s"
    assert manager.delete_session("s")
    assert [m.content for m in manager.get_messages("f")] == ["one"]
    assert manager.load_state("f").context == {"n": 1}


def test_approvals_suspend_and_resume(manager: Any, migrated_url: str) -> None:
    """A request suspends the session and its decision resumes it; one that nobody decides expires."""
    manager.create_session(session_id="s")
    asked = manager.request_approval("s", "deploy", details={"to": "prod"}, suspend=True, expires_in="1h")
    assert manager.get_session("s").state == "suspended"
    assert [a.approval_id for a in manager.list_approvals()] == [asked.approval_id]
    assert manager.resolve_approval("s", asked.approval_id, True, by="me").state == "approved"
    assert manager.resolve_approval("s", asked.approval_id, True).resolved_by == "me"
    with pytest.raises(ApprovalResolved):
        manager.resolve_approval("s", asked.approval_id, False)
    assert manager.get_session("s").state == "active"
    late = manager.request_approval("s", "again", suspend=True, expires_in="1h")
    backdate(migrated_url, t.approvals, expires_at=PAST)
    assert manager.expire_approvals(dry_run=True).count == manager.expire_approvals().count == 1
    assert manager.get_session("s").state == "active"
    with pytest.raises(ApprovalResolved, match="expired"):
        manager.resolve_approval("s", late.approval_id, True)


def test_connections_are_reaped_when_silent(manager: Any, migrated_url: str) -> None:
    """A beat keeps a connection; silence removes it."""
    manager.create_session(session_id="s")
    opened = manager.open_connection("s", client={"ip": "::1"})
    assert manager.beat_connection("s", opened.connection_id)
    assert manager.reap_connections().count == 0
    backdate(migrated_url, t.connections, beat_at=PAST, silent_at=PAST)
    assert manager.reap_connections(dry_run=True).count == manager.reap_connections().count == 1
    assert not manager.beat_connection("s", opened.connection_id)
    assert manager.list_connections() == []


def test_lists_filter_sort_and_page(manager: Any) -> None:
    """Every filter chooses, every order is total, and pages by cursor or offset hold each session once."""
    for i in range(12):
        manager.create_session(
            session_id=f"s{i:02}", title=f"T{i % 5}", user_id=f"u{i % 2}", agent_id=f"a{i % 3}", kind=f"k{i % 2}",
            parent_id="s00" if i > 9 else None, metadata={"n": i % 2, "t": "x"},
        )  # fmt: skip
    manager.suspend_session("s03")
    assert manager.list_sessions(user_id="u1", agent_id="a0", count=True).total == 2
    assert [s.session_id for s in manager.list_sessions(state="suspended").items] == ["s03"]
    assert {s.session_id for s in manager.list_sessions(parent_id="s00").items} == {"s10", "s11"}
    assert manager.list_sessions(kind="k1", metadata={"n": 1, "t": "x"}, count=True).total == 6
    assert manager.list_sessions(metadata={"n": "1"}, count=True).total == 0
    assert manager.list_sessions(where=t.sessions.c.session_id > "s09", count=True).total == 2
    among = t.sessions.c.session_id
    assert manager.list_sessions(where=among.in_(["s01", "s02", "no"]), count=True).total == 2
    assert manager.list_sessions(where=among.not_in(["s01", "s02"]), count=True).total == 10
    assert manager.list_sessions(where=among.in_([]), count=True).total == 0
    assert manager.list_sessions(where=among.not_in([]), count=True).total == 12
    assert manager.list_sessions(since=datetime.now(UTC) + timedelta(hours=1)).items == []
    for sort in ("updated_at", "created_at", "last_active_at", "title", "session_id"):
        for order in ("asc", "desc"):
            whole = [s.session_id for s in manager.list_sessions(sort=sort, order=order, limit=100).items]
            paged: list[str] = []
            page = manager.list_sessions(sort=sort, order=order, limit=5)
            while True:
                paged += [s.session_id for s in page.items]
                if page.next_cursor is None:
                    break
                page = manager.list_sessions(sort=sort, order=order, limit=5, cursor=page.next_cursor)
            stepped = [
                s.session_id
                for offset in (0, 5, 10)
                for s in manager.list_sessions(sort=sort, order=order, limit=5, offset=offset).items
            ]
            assert len(set(whole)) == 12
            assert whole == paged == stepped
    for bad in ({"sort": "x"}, {"order": "x"}, {"limit": 0}, {"limit": 101}, {"cursor": "!"}, {"state": "x"}):
        with pytest.raises(InvalidArgument):
            manager.list_sessions(**bad)


@pytest.mark.parametrize(
    "at",
    [
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5))),
        datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5))),
    ],
)
def test_times_beyond_the_calendar_are_refused(at: datetime) -> None:
    """In UTC they are of the year 0 or 10000, which nobody can write."""
    with SessionManager.open("sqlite://") as manager:
        with pytest.raises(InvalidArgument, match="years 1 to 9999"):
            manager.create_session(available_at=at)
        with pytest.raises(InvalidArgument, match="years 1 to 9999"):
            manager.list_sessions(since=at)


@pytest.mark.parametrize(
    ("needle", "found"),
    [
        ("STRASSE", {"a"}), ("straße", {"a"}), ("100%", {"b"}), ("%", {"b"}), ("_", {"b"}), ("\\", {"b"}),
        ("σοφοσ", {"c"}), ("漢", {"d"}), ("é", {"e"}), ("E\u0301", {"e"}), ("said", {"a"}), ("nothing", set()),
    ],
)  # fmt: skip
def test_search_gives_the_same_answers_everywhere(manager: Any, needle: str, found: set[str]) -> None:
    """A substring is found whatever its case, in titles and messages; wildcards are ordinary characters."""
    titles = {"a": "Hauptstraße 1", "b": "100% of a_b\\c", "c": "ΣΟΦΟΣ", "d": "漢字", "e": "caf\u00c9"}
    for session_id, title in titles.items():
        manager.create_session(session_id=session_id, title=title)
    manager.add_message("a", "user", "He SAID so")
    page = manager.list_sessions(search=needle, search_messages=True)
    assert {s.session_id for s in page.items} == found


def test_deleting_hides_or_removes(manager: Any) -> None:
    """A soft deletion can be undone, a hard one leaves only the audit log; protection needs force."""
    manager.create_session(session_id="s", user_id="u", context={"a": 1})
    manager.add_message("s", "user", "hi")
    assert manager.delete_session("s", soft=True)
    assert manager.get_session("s") is None
    assert manager.get_messages("s") == []
    assert manager.load_state("s") is None
    with pytest.raises(SessionExists):
        manager.create_session(session_id="s")
    assert manager.undelete_session("s").message_count == 1
    manager.update_session("s", protected=True)
    with pytest.raises(SessionProtected):
        manager.delete_session("s")
    assert manager.delete_session("s", force=True)
    assert not manager.delete_session("s")
    assert [h.trigger for h in manager.history("s")] == ["delete"]
    assert manager.open_session("s", title="new").title == "new"
    assert manager.load_state("s") is None
    manager.create_session(user_id="u")
    assert manager.delete_user("u") == 1


def test_sweeps_take_what_is_due_and_nothing_else(manager: Any, migrated_url: str) -> None:
    """Idle sessions expire and finished ones are pruned; protected, leased and touched ones stay; dry runs agree."""
    for name in ("idle", "kept", "held", "fresh"):
        manager.create_session(session_id=name, protected=name == "kept", context={})
    backdate(migrated_url, t.sessions, expires_at=PAST)
    with connected(migrated_url) as connection:
        lease = {"lease_holder": "h", "lease_expires_at": datetime.now(UTC) + timedelta(hours=1)}
        connection.execute(sa.update(t.sessions).where(t.sessions.c.session_id == "held").values(lease))
    manager.touch_session("fresh")
    with pytest.raises(SessionBusy):
        manager.save_state("held", step=1)
    assert manager.expire_idle(dry_run=True).count == 1
    report = manager.expire_idle()
    assert (report.session_ids, report.backlog_age > 3e7) == (["idle"], True)
    assert manager.get_session("idle").state == "expired"
    assert manager.expire_idle().count == 0
    assert manager.prune_sessions().count == 0
    backdate(migrated_url, t.sessions, prune_at=PAST)
    assert manager.prune_sessions(dry_run=True).count == 1
    assert manager.prune_sessions().session_ids == ["idle"]
    assert {s.session_id for s in manager.list_sessions().items} == {"kept", "held", "fresh"}
    assert manager.suspend_session("held").lease_holder is None


def test_ghosts_and_stale_sessions(manager: Any, migrated_url: str) -> None:
    """Sessions in which nothing was stored go; stale ones are ended with a reason; finished delegations go with theirs."""
    manager.create_session(session_id="ghost")
    manager.create_session(session_id="said")
    manager.add_message("said", "user", "hi")
    backdate(migrated_url, t.sessions, ghost_at=PAST)
    assert manager.delete_ghosts(dry_run=True).count == 1
    assert manager.delete_ghosts().session_ids == ["ghost"]
    backdate(migrated_url, t.sessions, listed_at=PAST, last_active_at=PAST)
    assert manager.cleanup_stale_sessions("1h", reason="silent").session_ids == ["said"]
    ended = manager.get_session("said")
    assert (ended.state, ended.reason) == ("ended", "silent")
    manager.create_session(session_id="sub", parent_id="said")
    manager.create_session(session_id="subsub", parent_id="sub", protected=True)
    with pytest.raises(SessionProtected):
        manager.cleanup_after_delegation("sub")
    manager.update_session("subsub", protected=False)
    assert manager.cleanup_after_delegation("sub").count == 2
    with pytest.raises(InvalidArgument, match="no parent"):
        manager.cleanup_after_delegation("said")


def test_policies_by_kind_and_their_change(migrated_url: str) -> None:
    """A kind's own limits are stamped into its sessions, and stamped anew after a change; an own timeout stays."""
    kinds = {"cron": {"idle": "60m", "retention": "1d"}}
    settings: Any = Settings(database={"url": migrated_url}, policies={"kinds": kinds})
    with SessionManager.open(settings) as manager:
        cron = manager.create_session(session_id="c", kind="cron")
        manager.create_session(session_id="own", kind="cron", idle_timeout="2h")
        assert cron.expires_at is not None
        assert timedelta(minutes=60) <= cron.expires_at - cron.created_at <= timedelta(minutes=63)
        done = manager.complete_session(manager.create_session(kind="cron").session_id)
        assert done.ended_at is not None
        assert done.prune_at == done.ended_at + timedelta(days=1)
    with SessionManager.open(migrated_url) as manager:
        assert manager.apply_policies(dry_run=True) == manager.apply_policies() == 2
        limits = {s.session_id: s.idle_active for s in manager.list_sessions(state="active").items}
        assert limits == {"c": 86400, "own": 7200}
        assert manager.apply_policies() == 0


def keeping(url: str, **kinds: dict[str, Any]) -> Settings:
    """Settings with what is kept of the checkpoints of each kind."""
    policies: Any = {"kinds": {kind: {"checkpoints": kept} for kind, kept in kinds.items()}}
    database: Any = {"url": url}
    return Settings(database=database, policies=policies)


def labels(manager: Any, session_id: str) -> list[str]:
    """The labels of the checkpoints that are there, oldest first."""
    return [one.label for one in manager.list_checkpoints(session_id)]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_the_newest_checkpoints_are_kept(migrated_url: str, way: str) -> None:
    """Of a kind that keeps so many, older ones go with the next; there is no way back to them, and nothing else goes."""
    with opened(keeping(migrated_url, short={"keep_last": 2}), way) as manager:
        for session_id, kind in (("s", "short"), ("other", "short"), ("all", "chat")):
            manager.create_session(session_id=session_id, kind=kind)
            manager.add_message(session_id, "user", "one")
        seqs = []
        for i in range(5):
            manager.save_state("s", context={"n": i})
            seqs.append(manager.checkpoint("s", str(i)).seq)
            manager.checkpoint("all", str(i))
        manager.checkpoint("other", "only")
        assert labels(manager, "s") == ["3", "4"]
        assert labels(manager, "all") == ["0", "1", "2", "3", "4"]
        assert labels(manager, "other") == ["only"]
        for seq in seqs[:3]:
            with pytest.raises(CheckpointNotFound):
                manager.restore_checkpoint("s", seq)
            with pytest.raises(CheckpointNotFound):
                manager.fork_session("s", checkpoint=seq)
        manager.restore_checkpoint("s", seqs[3])
        assert manager.load_state("s").context == {"n": 3}
        assert [m.content for m in manager.get_messages("s")] == ["one"]
        manager.complete_session("s")
        with pytest.raises(InvalidTransition):
            manager.checkpoint("s", "late")
        assert labels(manager, "s") == ["3", "4"]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_the_first_checkpoint_of_each_hour_is_kept(migrated_url: str, way: str) -> None:
    """Beside the newest; what was kept as the first of its hour stays, whatever is added later."""
    with opened(keeping(migrated_url), way) as manager:
        manager.create_session(session_id="s", kind="hourly")
        made = {name: manager.checkpoint("s", name).seq for name in ("1:00", "1:59", "2:00", "2:01", "4:30", "5:59")}
    day = PAST.replace(hour=0, minute=0, second=0, microsecond=0)
    times = {
        seq: sa.literal(day + timedelta(hours=int(name[0]), minutes=int(name[2:])), t.checkpoints.c.created_at.type)
        for name, seq in made.items()
    }
    backdate(migrated_url, t.checkpoints, created_at=sa.case(times, value=t.checkpoints.c.seq))
    with opened(keeping(migrated_url, hourly={"keep_last": 2, "keep_every": "1h"}), way) as manager:
        assert manager.apply_policies() == 0
        assert len(labels(manager, "s")) == 6
        manager.checkpoint("s", "now")
        assert labels(manager, "s") == ["1:00", "2:00", "4:30", "5:59", "now"]
        # Were the clock to pass the hour in between, the first of the next one would be kept too.
        for name in ("again", "and again", "last"):
            manager.checkpoint("s", name)
        assert labels(manager, "s")[:5] == ["1:00", "2:00", "4:30", "5:59", "now"]
        assert labels(manager, "s")[-2:] == ["and again", "last"]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_long_history_of_checkpoints_goes_in_parts(migrated_url: str, way: str) -> None:
    """A policy that is new to a session with very many removes a bounded number with each checkpoint, oldest first."""
    old = 1500
    with opened(keeping(migrated_url, short={"keep_last": 1}), way) as manager:
        manager.create_session(session_id="s", kind="short")
        backdate(migrated_url, t.sessions, next_seq=old + 1)
        with connected(migrated_url) as connection:
            row = {"tenant": "", "session_id": "s", "label": "old", "version": 1, "created_at": PAST}
            connection.execute(sa.insert(t.checkpoints), [row | {"seq": seq} for seq in range(1, old + 1)])
        first = manager.checkpoint("s", "first")
        assert [one.seq for one in manager.list_checkpoints("s")] == [*range(1025, old + 1), first.seq]
        manager.checkpoint("s", "second")
        assert labels(manager, "s") == ["second"]


@pytest.mark.parametrize("keep_every", ["never", "1w"])
def test_checkpoints_made_at_once_leave_the_newest(migrated_url: str, keep_every: str) -> None:
    """However they interleave, each sees those before it: none too many stays, and none of the newest goes."""
    settings = keeping(migrated_url, short={"keep_last": 3, "keep_every": keep_every})
    with SessionManager.open(settings) as manager, ThreadPoolExecutor(4) as pool:
        manager.create_session(session_id="s", kind="short")
        first = manager.checkpoint("s", "first").seq

        def make(_: int) -> list[int]:
            return [manager.checkpoint("s", "more").seq for _ in range(10)]

        seqs = sorted(seq for made in pool.map(make, range(4)) for seq in made)
        assert len(set(seqs)) == 40
        left = [one.seq for one in manager.list_checkpoints("s")]
        assert left[-3:] == seqs[-3:]
        # A week may begin in between.
        assert left[:-3] == [] if keep_every == "never" else left[0] == first and len(left) <= 5


def test_a_tenant_sees_only_its_own(manager: Any) -> None:
    """The same id in two tenants is two sessions; ALL lists both, and works on none."""
    other = manager.for_tenant("other")
    manager.create_session(session_id="s", title="mine")
    assert other.get_session("s") is None
    assert other.create_session(session_id="s", title="theirs").tenant == "other"
    assert manager.get_session("s").title == "mine"
    assert not other.for_tenant("third").delete_session("s")
    everybody = manager.for_tenant(ALL)
    assert everybody.list_sessions(count=True).total == 2
    with pytest.raises(InvalidArgument, match="for_tenant"):
        everybody.get_session("s")
    assert manager.get_stats().total == 1


def test_hooks(manager: Any) -> None:
    """A condition can refuse, a before-hook can stop, and the failure of an after-hook undoes nothing."""
    seen: list[str] = []
    manager.condition("complete")(lambda session: session.step == 1)
    manager.before("complete")(lambda session: seen.append(f"before {session.state}"))
    manager.after("complete")(lambda session: seen.append(f"after {session.state}"))
    manager.after("complete")(lambda _: 1 / 0)
    manager.create_session(session_id="s")
    with pytest.raises(InvalidTransition, match="refused"):
        manager.complete_session("s")
    manager.save_state("s", step=1)
    assert manager.complete_session("s").state == "completed"
    assert seen == ["before active", "after completed"]


def test_errors_have_one_root(manager: Any) -> None:
    """What a caller can get is a LifecycleError."""
    with pytest.raises(LifecycleError):
        manager.update_session("none", title="x")
    with pytest.raises(LifecycleError):
        manager.fork_session("none")
