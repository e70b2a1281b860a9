"""Samples on every store: what was counted, and what happened in each hour, once and to the right one."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pymysql
import pytest
import sqlalchemy as sa

from lifecycle import ALL, InvalidArgument, SessionManager, Settings
from lifecycle.models import tables as t
from lifecycle.operations.places import Place
from lifecycle.operations.requests import CountTransitions
from lifecycle.operations.samples import GAUGES, TRIGGERS
from lifecycle.recipes import book
from lifecycle.recipes.statement import Many
from lifecycle.upkeep import Upkeep
from tests.managers import backdate, connected

HOUR = timedelta(hours=1)


def hour(at: datetime) -> datetime:
    """The beginning of its hour."""
    return at.replace(minute=0, second=0, microsecond=0)


def counted(manager: Any, *names: str, since: datetime | None = None) -> dict[str, float]:
    """What happened, all hours together."""
    found = manager.get_samples(names, since=since).series
    return {name: sum(value for _, value in points) for name, points in found.items()}


@contextmanager
def everybody(url: str) -> Iterator[SessionManager]:
    """A manager of all tenants."""
    with SessionManager.open(url, ALL) as manager:
        yield manager


class TestCounts:
    """What there is, when somebody last looked."""

    def test_there_is_nothing_before_anybody_looked(self, manager: Any) -> None:
        """No numbers rather than zeros, and no time."""
        manager.create_session(session_id="s")
        assert manager.get_counts() is None
        found = manager.get_samples(["active", "create"])
        assert (found.sampled_at, found.counted_since) == (None, None)
        assert found.series == {"active": [], "create": []}

    def test_each_state_the_backlog_approvals_and_leases(self, manager: Any, migrated_url: str) -> None:
        """They are as the rows are at that time, and stay so until the next look."""
        for name in ("a", "b", "c", "d", "e", "f", "hidden"):
            manager.create_session(session_id=name)
        manager.suspend_session("b")
        manager.complete_session("c")
        manager.end_session("d")
        manager.expire_session("e")
        manager.delete_session("hidden", soft=True)
        manager.request_approval("f", action="go?", suspend=False)
        manager.acquire_lease("a", holder="me", ttl=60)
        late = datetime.now(UTC) - timedelta(seconds=90)
        backdate(migrated_url, t.sessions, t.sessions.c.session_id.in_(["a", "b", "f"]), expires_at=late)
        backdate(migrated_url, t.sessions, t.sessions.c.session_id == "c", prune_at=late)

        manager.take_sample()
        counts = manager.get_counts()
        assert counts.by_state == {"active": 2, "suspended": 1, "completed": 1, "ended": 1, "expired": 1}
        # Whoever is leased is not due.
        assert (counts.due_to_expire, counts.due_to_prune) == (2, 1)
        assert 90 <= counts.backlog_age < 90 + 60
        assert (counts.pending_approvals, counts.leased) == (1, 1)
        assert abs((counts.sampled_at - datetime.now(UTC)).total_seconds()) < 60

        manager.complete_session("f")
        assert manager.get_counts() == counts
        again(migrated_url)
        manager.take_sample()
        assert manager.get_counts().by_state["completed"] == 2
        assert manager.get_counts().due_to_expire == 1

    def test_a_tenant_is_shown_its_own_numbers(self, migrated_url: str) -> None:
        """A look at everybody's serves each tenant and all together; what is gone is 0, not what it was."""
        with everybody(migrated_url) as manager:
            for tenant, sessions in (("", 1), ("a", 2), ("*active", 3)):
                for number in range(sessions):
                    manager.for_tenant(tenant).create_session(session_id=f"s{number}")
            manager.take_sample()
            numbers = {name: manager.for_tenant(name).get_counts() for name in ("", "a", "*active", "nobody")}
            assert [counts.by_state["active"] for counts in numbers.values() if counts] == [1, 2, 3, 0]
            total = manager.get_counts()
            assert total is not None
            assert total.by_state["active"] == 6
            # How much happens at others' is not a tenant's to know.
            assert (total.transitions["create"], numbers["a"].transitions if numbers["a"] else None) == (6, {})
            for number in range(2):
                manager.for_tenant("a").delete_session(f"s{number}")
            again(migrated_url)
            manager.take_sample()
            left = manager.for_tenant("a").get_counts()
            assert left is not None
            assert (left.by_state["active"], left.sampled_at > total.sampled_at) == (0, True)
            assert counted(manager.for_tenant("a"), "create", "delete") == {"create": 2, "delete": 2}

    def test_a_worker_of_one_tenant_looks_at_its_own(self, migrated_url: str) -> None:
        """Others have no numbers from it."""
        with SessionManager.open(migrated_url, "a") as manager:
            manager.create_session(session_id="s")
            manager.for_tenant("b").create_session(session_id="s")
            manager.take_sample()
            own = manager.get_counts()
            assert own is not None
            assert own.by_state["active"] == 1
            assert manager.for_tenant("b").get_counts() is None
            assert manager.for_tenant(ALL).get_counts() is None

    def test_a_look_waits_while_one_is_fresh_or_took_long(self, migrated_url: str) -> None:
        """For `spacing`, and for 19 times as long as the last one took; transitions are counted all the same."""
        with everybody(migrated_url) as manager:
            manager.take_sample()
            manager.for_tenant("").create_session(session_id="s")
            assert manager.take_sample(spacing=3600).count == 1
            first = manager.get_counts()
            assert first is not None
            assert first.by_state["active"] == 0
            again(migrated_url, seconds=100.0, ago=1800)  # of 1900 that it is to rest
            manager.take_sample()
            assert manager.get_counts().by_state["active"] == 0  # type: ignore[union-attr]
            again(migrated_url, seconds=100.0, ago=2000)
            manager.take_sample()
            assert manager.get_counts().by_state["active"] == 1  # type: ignore[union-attr]

    def test_a_name_that_is_none_is_refused(self, manager: Any) -> None:
        """And said which there are."""
        with pytest.raises(InvalidArgument, match=r"names: 'actve' is none of active, .*, create, "):
            manager.get_samples(["actve"])
        with pytest.raises(InvalidArgument, match="names must be a list"):
            manager.get_samples("active")


class TestTransitions:
    """What happened, by the hour."""

    def test_each_trigger_is_counted_once(self, manager: Any) -> None:
        """However many pages and looks it takes."""
        for number in range(7):
            manager.create_session(session_id=f"s{number}")
        manager.complete_session("s0")
        manager.suspend_session("s1")
        manager.resume_session("s1")
        assert manager.take_sample(batch=2).count == 10
        manager.end_session("s1")
        manager.take_sample()
        manager.take_sample()
        expected = {"create": 7, "complete": 1, "suspend": 1, "resume": 1, "end": 1}
        assert counted(manager, *TRIGGERS) == dict.fromkeys(TRIGGERS, 0) | expected

    def test_a_transition_counts_for_its_own_hour(self, migrated_url: str) -> None:
        """Hours in which nothing happened are there as 0, and the hour of the transition is by its time, not the look's."""
        with SessionManager.open(migrated_url) as manager:
            for name in ("s", "early"):
                manager.create_session(session_id=name)
            now = datetime.now(UTC)
            at = hour(now) - 3 * HOUR
            log = t.transitions.c
            backdate(migrated_url, t.transitions, log.session_id == "s", created_at=at)
            backdate(migrated_url, t.transitions, log.session_id == "early", created_at=at - timedelta(microseconds=1))
            manager.take_sample()
            points = dict(manager.get_samples(["create"]).series["create"])
            assert [points.get(at + HOUR * n) for n in range(-1, 4)] == [1, 1, 0, 0, 0]
            assert sorted(points) == [at + HOUR * n for n in range(-1, len(points) - 1)]
            # From the hour of `since` on, all of it.
            recent = manager.get_samples(["create"], since=at + timedelta(minutes=59)).series["create"]
            assert recent[0] == (at, 1.0)

    def test_looks_at_once_count_nothing_twice(self, shared_url: str) -> None:
        """Several workers that all look, as they might when a lease ran out, while sessions are made."""
        with everybody(shared_url) as manager:
            made = threading.Event()
            errors: list[BaseException] = []

            def make() -> None:
                try:
                    for number in range(60):
                        manager.for_tenant(f"t{number % 3}").create_session(session_id=f"s{number}")
                finally:
                    made.set()

            def look() -> None:
                try:
                    with everybody(shared_url) as own:
                        while not made.is_set():
                            own.take_sample(batch=3)
                except BaseException as error:  # noqa: BLE001 -- told to the test
                    errors.append(error)

            threads = [threading.Thread(target=target) for target in (make, look, look, look)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert errors == []
            manager.take_sample()
            assert counted(manager, "create") == {"create": 60}
            assert [counted(manager.for_tenant(f"t{n}"), "create")["create"] for n in range(3)] == [20, 20, 20]
            assert manager.get_counts().transitions["create"] == 60  # type: ignore[union-attr]

    @pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
    def test_what_commits_late_is_counted(self, kind: str, request: pytest.FixtureRequest) -> None:
        """A transaction that began before others, and commits after a look that counted those, in an hour gone by."""
        fixture = {"postgresql": "migrated_postgres_url", "mariadb": "migrated_mariadb_url"}[kind]
        url = str(request.getfixturevalue(fixture))
        at = hour(datetime.now(UTC)) - 2 * HOUR
        with everybody(url) as manager, late_transaction(url) as late:
            manager.for_tenant("").create_session(session_id="before")
            late("late", at)
            manager.for_tenant("").create_session(session_id="after")
            manager.take_sample()
            seen = counted(manager, "create", since=at)["create"]
            late(None, at)
            manager.take_sample()
            manager.take_sample()
            assert seen < 3  # its lines were not there yet
            assert counted(manager, "create", since=at) == {"create": 3}
            assert dict(manager.get_samples(["create"], since=at).series["create"]).get(at, 0) in {0, 1}

    def test_a_crash_in_the_middle_counts_nothing_twice(
        self, migrated_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The place in the log is written with the hours: a look that does not commit leaves both as they were."""
        with everybody(migrated_url) as manager:
            for number in range(5):
                manager.for_tenant("").create_session(session_id=f"s{number}")
            written: list[Any] = []

            def cut_off(whole: Any, request: Any) -> Any:
                steps = whole(request)
                answer = yield next(steps)
                while True:
                    step = steps.send(answer)
                    answer = yield step
                    if isinstance(step, Many):
                        written.extend(step.values)
                        raise KeyboardInterrupt

            with monkeypatch.context() as patch:
                for recipes in book.RECIPES.values():
                    patch.setitem(recipes, CountTransitions, partial(cut_off, recipes[CountTransitions]))
                with pytest.raises(KeyboardInterrupt):
                    manager.take_sample()
            assert written
            manager.take_sample()
            assert counted(manager, "create") == {"create": 5}

    def test_a_database_set_back_goes_on_from_where_it_is(self, migrated_url: str) -> None:
        """A place that lies ahead of the log is given up: what comes is counted, what was is not again."""
        with everybody(migrated_url) as manager:
            manager.for_tenant("").create_session(session_id="s")
            manager.take_sample()
            backdate(
                migrated_url, t.worker_jobs, t.worker_jobs.c.job == "samples_log",
                last_result=sa.func.replace(t.worker_jobs.c.last_result, cursor_of(migrated_url), AHEAD[kind_of(migrated_url)]),
            )  # fmt: skip
            manager.take_sample()
            manager.for_tenant("").create_session(session_id="t")
            manager.take_sample()
            assert counted(manager, "create") == {"create": 2}


class TestUpkeep:
    """The worker's job."""

    def test_the_job_counts_and_trims(self, migrated_url: str) -> None:
        """It counts each time, and the pruning job removes what is older than two weeks."""
        with everybody(migrated_url) as manager:
            manager.for_tenant("a").create_session(session_id="s")
            upkeep = Upkeep(manager)
            assert "sample_counts" in upkeep.enabled
            done = upkeep.run_job("sample_counts")
            assert done is not None
            assert (done["count"], done["complete"]) == (1, True)
            assert manager.get_counts().by_state["active"] == 1  # type: ignore[union-attr]
            with connected(migrated_url) as connection:
                rows = connection.scalars(sa.select(sa.func.count()).select_from(t.samples)).one()
            backdate(
                migrated_url, t.samples, t.samples.c.tenant == "a", sampled_at=datetime.now(UTC) - timedelta(days=15)
            )
            pruned = upkeep.run_job("prune_sessions")
            assert pruned is not None
            assert pruned["trimmed"] == rows - len(GAUGES) - 1 > 0
            assert counted(manager, "create") == {"create": 1}

    def test_what_was_never_leased_is_no_job(self, migrated_url: str) -> None:
        """The places that samples and watches keep are not shown among the jobs."""
        with everybody(migrated_url) as manager:
            Upkeep(manager).run_job("sample_counts")
            next(iter(manager.watch(after="", timeout=0)), None)
            assert [row["job"] for row in manager.list_workers()["jobs"]] == ["sample_counts"]

    def test_several_workers_look_once(self, migrated_url: str) -> None:
        """Whoever comes soon after another leaves it at the transitions."""
        settings = Settings(database={"url": migrated_url})
        with SessionManager.open(settings, ALL) as manager:
            Upkeep(manager, holder="one").run_job("sample_counts")
            first = manager.get_counts()
            manager.for_tenant("").create_session(session_id="s")
            Upkeep(manager, holder="two").run_job("sample_counts")
            second = manager.get_counts()
            assert first is not None
            assert second is not None
            assert (second.sampled_at, second.by_state) == (first.sampled_at, first.by_state)
            assert (first.transitions["create"], second.transitions["create"]) == (0, 1)


def again(url: str, seconds: float = 0.0, ago: float = 1.0) -> None:
    """Have the last look have been so long ago, and have taken so long."""
    at = datetime.now(UTC) - timedelta(seconds=ago)
    backdate(
        url, t.worker_jobs, t.worker_jobs.c.job == "samples", t.worker_jobs.c.last_finished_at.is_not(None),
        last_finished_at=at, last_result=f'{{"seconds": {seconds}}}',
    )  # fmt: skip
    own = sa.and_(t.worker_jobs.c.job.like("samples:%"), t.worker_jobs.c.last_finished_at.is_not(None))
    backdate(url, t.worker_jobs, own, last_finished_at=at, last_result=f'{{"seconds": {seconds}}}')


def kind_of(url: str) -> str:
    """The kind of database that places of its log name."""
    return {"sqlite": "sqlite", "jsonl": "sqlite", "postgresql": "postgresql"}.get(
        url.split(":", maxsplit=1)[0], "mysql"
    )


def cursor_of(url: str) -> str:
    """The place up to which the log was counted."""
    with connected(url) as connection:
        kept = connection.scalar(sa.select(t.worker_jobs.c.last_result).where(t.worker_jobs.c.job == "samples_log"))
    return str(json.loads(kept or "{}")["cursor"])


AHEAD = {kind: Place(kind, 2**60, 2**60).cursor() for kind in ("sqlite", "postgresql", "mysql")}


@contextmanager
def late_transaction(url: str) -> Iterator[Any]:
    """A transaction of somebody else's: called with an id it writes a line of the log, called with None it commits."""
    insert = (
        "INSERT INTO session_transitions (tenant, session_id, seq, trigger_name, to_state, version, created_at, txid)"
        " VALUES ('', %s, 1, 'create', 'active', 1, %s, {})"
    )
    parsed = sa.make_url(url)
    connection: Any
    if parsed.get_backend_name() == "postgresql":
        connection, number = psycopg.connect(url), "pg_current_xact_id()::text::bigint"
    else:
        options: dict[str, Any] = {"host": parsed.host, "port": parsed.port} if parsed.host else {}
        connection = pymysql.connect(
            user=parsed.username, password=parsed.password or "", database=parsed.database,
            unix_socket=parsed.query.get("unix_socket"), **{k: v for k, v in options.items() if v},
        )  # fmt: skip
        number = "NULL"
    try:
        with connection.cursor() as cursor:

            def late(session_id: str | None, at: datetime) -> None:
                if session_id is None:
                    connection.commit()
                else:
                    given = at if number != "NULL" else at.replace(tzinfo=None)
                    cursor.execute(insert.format(number), (session_id, given))

            yield late
    finally:
        connection.close()


def test_the_names_are_told_apart() -> None:
    """What there is and what happens: no name is both."""
    assert [name for name, n in Counter((*GAUGES, *TRIGGERS)).items() if n > 1] == []
