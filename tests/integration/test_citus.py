"""What is done otherwise on Citus: many sessions at once, without locking more than one, and the order of the audit log."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lifecycle import ALL, SessionManager
from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.recipes.citus_coordinator import horizon, sent
from lifecycle.recipes.citus_halving import halves, joined
from lifecycle.recipes.citus_lists import MOST
from lifecycle.recipes.statement import Statement
from lifecycle.transfer.connections import Connection
from lifecycle.transfer.exporting import export_sessions
from lifecycle.transfer.importing import import_sessions
from tests import citus
from tests.managers import backdate
from tests.statements import classify, written

PAST = datetime.now(UTC) - timedelta(days=400)
PATIENCE = 60.0


@pytest.fixture
def manager(stand_in_url: str) -> Iterator[SessionManager]:
    """A manager of the nameless tenant's."""
    with SessionManager.open(stand_in_url) as opened:
        yield opened


def due(manager: SessionManager, url: str, *names: str, **moved: Any) -> None:
    """Create sessions that are due, in this order."""
    for place, name in enumerate(names):
        manager.create_session(session_id=name)
        at = moved or {"expires_at": PAST + timedelta(minutes=place)}
        backdate(url, t.sessions, t.sessions.c.session_id == name, **at)


def state(manager: SessionManager, name: str) -> str:
    """A session's state."""
    found = manager.get_session(name)
    assert found is not None
    return found.state


class Meanwhile:
    """Does something once, right before a statement of a kind is sent for a request."""

    def __init__(self, request: str, begins: str, act: Callable[[], Any]) -> None:
        self._wanted = request, begins
        self._act = act
        self.done = False

    def __call__(self, request: str, statement: Statement) -> None:
        """Look at what is about to be sent."""
        sql, _ = written(statement)
        if not self.done and request == self._wanted[0] and sql.startswith(self._wanted[1]):
            self.done = True
            self._act()


class TestSweeps:
    """A plain read picks, and the write looks again."""

    def test_what_was_touched_in_between_stays_and_another_is_taken(
        self, manager: SessionManager, stand_in_url: str
    ) -> None:
        """The batch is as large as was wanted all the same: a short one would end the sweep."""
        due(manager, stand_in_url, "a", "b", "c", "d")
        with SessionManager.open(stand_in_url) as other:
            meanwhile = Meanwhile("SweepBatch", "UPDATE sessions", lambda: other.touch_session("a"))
            with citus.watched(meanwhile):
                report = manager.expire_idle(batch=2)
        assert meanwhile.done
        assert (report.count, report.batches) == (3, 2)
        assert report.session_ids == ["b", "c", "d"]
        assert state(manager, "a") == "active"
        assert [line.from_state for line in manager.history("b")] == [None, "active"]

    def test_a_changed_state_is_seen(self, manager: SessionManager, stand_in_url: str) -> None:
        """What the audit log says it was is what it was."""
        due(manager, stand_in_url, "a")

        def suspend() -> None:
            with SessionManager.open(stand_in_url) as other:
                other.suspend_session("a")
                backdate(stand_in_url, t.sessions, expires_at=PAST)

        with citus.watched(Meanwhile("SweepBatch", "UPDATE sessions", suspend)):
            assert manager.expire_idle().count == 1
        states = [(line.from_state, line.to_state) for line in manager.history("a")]
        assert states[1:] == [("active", "suspended"), ("suspended", "expired")]

    def test_nothing_is_added_to_what_is_removed(self, manager: SessionManager, stand_in_url: str) -> None:
        """Who would add to a session waits for the removal, and finds it gone: no row of it is left."""
        due(manager, stand_in_url, "a", ghost_at=PAST)
        added: list[str] = []

        def add() -> None:
            with SessionManager.open(stand_in_url) as other:
                try:
                    other.add_message("a", "user", "late")
                except Exception as error:  # noqa: BLE001 -- its name is what is asked
                    added.append(type(error).__name__)

        thread = threading.Thread(target=add)

        def begin() -> None:
            thread.start()
            waiting(stand_in_url)

        with citus.watched(Meanwhile("SweepBatch", "DELETE FROM session_messages", begin)):
            assert manager.delete_ghosts().count == 1
        thread.join(PATIENCE)
        assert added == ["SessionNotFound"]
        with psycopg.connect(stand_in_url) as connection:
            for table in t.CHILDREN:
                assert connection.execute(f"SELECT count(*) FROM {table.name}".encode()).fetchone() == (0,)
        assert [line.trigger for line in manager.recent_transitions()] == ["delete"]

    def test_tenants_are_told_apart(self, manager: SessionManager, stand_in_url: str) -> None:
        """One id under two tenants is two sessions: only the one that is due is acted on."""
        other = manager.for_tenant("other")
        due(other, stand_in_url, "same")
        manager.create_session(session_id="same")
        with SessionManager.open(stand_in_url, ALL) as everybody:
            assert everybody.expire_idle().count == 1
        assert state(other, "same") == "expired"
        assert state(manager, "same") == "active"


def waiting(url: str) -> None:
    """Wait until somebody waits for a lock in the database."""
    deadline = time.monotonic() + PATIENCE
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchone() == (0,):
            assert time.monotonic() < deadline


class TestHalving:
    """What was broken off by a deadlock is tried by halves."""

    def test_a_deadlock(self, manager: SessionManager, stand_in_url: str) -> None:
        """All that is due is done in the end, each once."""
        for name in "abcd":
            manager.create_session(session_id=name)
            manager.add_message(name, "user", "hello")
            manager.end_session(name)
        backdate(stand_in_url, t.sessions, prune_at=PAST)
        picked: list[int] = []

        def note(request: str, statement: Statement) -> None:
            meanwhile(request, statement)
            if request == "SweepBatch" and written(statement)[0].startswith("SELECT sessions.tenant"):
                picked.append(1)

        # Whoever waits last looks whether all wait in a circle, after a second.
        with psycopg.connect(stand_in_url, options="-c deadlock_timeout=60s") as connection:
            connection.execute("SELECT 1 FROM session_messages WHERE session_id = 'a' FOR UPDATE")

            def close_the_circle() -> None:
                connection.execute("SELECT 1 FROM sessions WHERE session_id = 'a' FOR UPDATE")
                connection.commit()

            thread = threading.Thread(target=close_the_circle)

            def begin() -> None:
                thread.start()
                waiting(stand_in_url)

            meanwhile = Meanwhile("SweepBatch", "DELETE FROM session_messages", begin)
            with citus.watched(note):
                report = manager.prune_sessions(batch=4)
            thread.join(PATIENCE)
        assert (report.count, sorted(report.session_ids)) == (4, ["a", "b", "c", "d"])
        assert len(picked) >= 3  # for the whole, and for each half
        assert manager.get_stats().messages == 0

    @pytest.mark.parametrize(
        "request_",
        [
            r.SweepBatch(r.Due(None, "expire_idle"), 5, None, None),
            r.ClaimSessions(None, ("chat",), "h", 30, 5),
            r.Trim(None, "tokens", 1, 5),
            r.RenewLeases("h", tuple(("", str(i), 1, 30.0) for i in range(5))),
            r.Touch("", tuple("abcde")),
        ],
        ids=lambda request: type(request).__name__,
    )
    def test_what_is_halved(self, request_: Any) -> None:
        """Both halves are the whole together; the smallest part is not halved any more."""

        def size(request: Any) -> int:
            if hasattr(request, "limit"):
                return int(request.limit)
            return len(request.leases if hasattr(request, "leases") else request.session_ids)

        parts = halves(request_)
        assert parts is not None
        assert [size(part) for part in parts] == [2, 3]
        smallest = halves(parts[0])
        assert smallest is not None
        assert halves(smallest[0]) is None

    def test_answers(self) -> None:
        """Keys stay with their ids, lists follow each other, numbers add up."""
        keys = joined(r.SweptIds([("t", "a")]), r.SweptIds([("u", "b")]))
        assert (list(keys), keys.keys) == (["a", "b"], [("t", "a"), ("u", "b")])
        assert joined(["a"], ["b"]) == ["a", "b"]
        assert joined(2, 3) == 5
        assert halves(r.GetStats(None)) is None


class TestClaims:
    """Found by a plain read, taken by their keys."""

    def test_only_what_the_dead_left(self, manager: SessionManager, stand_in_url: str) -> None:
        """Holders before, between and behind the living, in the order of their names; what the living hold is theirs."""
        for name in ("b", "d", "é"):
            manager.beat_worker(name, host="h", pid=1, release="r")
        holders = ["", "a", "b", "c", "d", "dd", "é", "日"]
        for holder in holders[1:]:
            manager.create_session(session_id=holder, available_at=PAST)
            assert [one.session_id for one in manager.claim_sessions(["chat"], holder=holder, ttl=300)] == [holder]
        backdate(stand_in_url, t.sessions, lease_expires_at=PAST)
        claimed = manager.claim_sessions(["chat"], holder="new", ttl=300, limit=20)
        assert sorted(one.session_id for one in claimed) == ["a", "c", "dd", "日"]

    def test_each_is_claimed_once(self, stand_in_url: str) -> None:
        """Whoever comes second finds that it waits no more, and takes others."""
        with SessionManager.open(stand_in_url, ALL) as everybody:
            for number in range(30):
                everybody.for_tenant(f"t{number % 3}").create_session(session_id=f"s{number}", available_at=PAST)
            taken: list[str] = []

            def claim(holder: str) -> None:
                while some := everybody.claim_sessions(["chat"], holder=holder, ttl=300, limit=4):
                    taken.extend(one.session_id for one in some)

            threads = [threading.Thread(target=claim, args=(f"h{number}",)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
        assert sorted(taken) == sorted(f"s{number}" for number in range(30))


def test_lists_over_all_tenants(stand_in_url: str) -> None:
    """The same page whether each tenant is asked or all of them at once."""
    with SessionManager.open(stand_in_url, ALL) as everybody:
        expected: list[tuple[str, str]] = []
        for number in range(MOST + 3):
            tenant = f"t{number % MOST if number < MOST else number:02}"
            everybody.for_tenant(tenant).create_session(session_id=f"s{number}")
            expected.insert(0, (tenant, f"s{number}"))
            if number not in {MOST - 1, MOST + 2}:
                continue
            found: list[tuple[str, str]] = []
            page = everybody.list_sessions(limit=4)
            while True:
                found += [(one.tenant, one.session_id) for one in page.items]
                if not page.has_more:
                    break
                page = everybody.list_sessions(limit=4, cursor=page.next_cursor)
            assert found == expected
            assert [one.session_id for one in everybody.list_sessions(limit=3, offset=2).items] == [
                name for _, name in expected[2:5]
            ]


class TestCoordinator:
    """What the nodes are not asked."""

    def test_the_horizon(self) -> None:
        """Whoever still has a lock on his number is not over, though the snapshot says so; numbers go round."""
        assert horizon({"snapshot": "100:105:103", "locked": None}) == 100
        assert horizon({"snapshot": "100:105:103", "locked": "98,101"}) == 98
        assert horizon({"snapshot": "100:100:", "locked": "100,104"}) == 100
        assert horizon({"snapshot": f"{2**32 + 2}:{2**32 + 2}:", "locked": f"{2**32 - 1}"}) == 2**32 - 1
        assert horizon({"snapshot": f"{2**32 + 2}:{2**32 + 9}:", "locked": "5"}) == 2**32 + 2

    def test_a_watch_waits_for_who_is_under_way(self, manager: SessionManager, stand_in_url: str) -> None:
        """A line that is committed behind one that is not is given behind it."""
        with psycopg.connect(stand_in_url) as connection:
            connection.execute(
                "INSERT INTO session_transitions (tenant, session_id, seq, trigger_name, version, created_at, txid)"
                " VALUES ('', 'first', 1, 'create', 1, now(), pg_current_xact_id()::text::bigint)"
            )
            manager.create_session(session_id="second")
            with manager.watch("", timeout=0) as watch:
                assert list(watch) == []
                cursor = watch.cursor
        with manager.watch(cursor, timeout=0) as watch:
            assert [event.session_id for event in watch] == ["first", "second"]

    def test_a_statement_without_the_clock_is_sent_as_it_is(self) -> None:
        """Nothing is compiled anew that need not be."""
        from lifecycle.recipes.portable.base import GET, LOCK, NOW

        assert sent(GET).statement is GET
        assert sent(NOW).statement is NOW
        changed = sent(LOCK)
        assert changed.statement is not LOCK
        assert (changed.now, changed.clock, changed.horizon) == (True, False, False)


def test_transfers(stand_in_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Export and import send nothing that Citus refuses, and bring everything back."""
    classes: set[str] = set()

    def watched(name: str) -> None:
        method = getattr(Connection, name) if name != "rows" else None
        owner: Any = Connection
        if name == "rows":
            owner = next(kind for kind in Connection.__subclasses__() if kind.kind == "postgresql")
            method = owner.rows
        assert method is not None

        def checked(self: Any, statement: Statement, *rest: Any) -> Any:
            classes.add(classify(*written(statement)))
            return method(self, statement, *rest)

        monkeypatch.setattr(owner, name, checked)

    for name in ("all", "many", "change", "rows"):
        watched(name)
    with SessionManager.open(stand_in_url) as manager:
        for number in range(3):
            manager.create_session(session_id=f"s{number}", context={"n": number})
            manager.add_message(f"s{number}", "user", "hello")
        manager.delete_session("s0")
        before = manager.get_stats().messages
    file = str(tmp_path / "all.jsonl")
    export_sessions(stand_in_url, file)
    report = import_sessions(stand_in_url, file, on_conflict="replace")
    assert report.replaced == 2
    assert classes >= {"router", "read"}
    assert classes <= {"router", "read", "write", "coordinator"}
    with SessionManager.open(stand_in_url) as manager:
        assert manager.get_stats().messages == before
        loaded = manager.load_state("s1")
        assert loaded is not None
        assert loaded.context == {"n": 1}
