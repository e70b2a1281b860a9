"""The daemon as users run it: real processes on real databases, stopped, killed and cut off."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lifecycle import ALL, SessionManager, Settings, migrate, urls
from lifecycle.incarnation import incarnation
from lifecycle.models import tables as t
from lifecycle.upkeep import Upkeep
from tests.servers import PostgresServer, ServerUnavailable, find_postgres

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
PAST = datetime.now(UTC) - timedelta(days=1)

MAIN = """
import json, sys, threading
from lifecycle import SessionManager, Settings
from workers import run

if "hang" in sys.argv:
    SessionManager.expire_idle = lambda self, **_: threading.Event().wait()
sys.exit(run(Settings(**json.loads(sys.argv[1]))))
"""


def until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until the condition gives something true, and return that; fail after a minute."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE:.0f} s for {what}")
        time.sleep(0.02)
    return found


def configured(url: str, *, worker: dict[str, Any] | None = None, **job: Any) -> dict[str, Any]:
    """Settings in which every job runs each second; `job` are those of expire_idle."""
    names = (
        "prune_sessions",
        "delete_ghosts",
        "expire_approvals",
        "reap_connections",
        "sync_directories",
        "sample_counts",
    )
    jobs = {name: {"every": 1} for name in names}
    return {
        "database": {"url": url},
        "worker": {"heartbeat": 1, "jobs": jobs | {"expire_idle": {"every": 1} | job}, **(worker or {})},
        "logging": {"level": "debug", "format": "json"},
    }


class Worker:
    """A daemon process, with what it logs."""

    def __init__(self, folder: Path, settings: dict[str, Any], *arguments: str) -> None:
        self.log = folder / f"worker-{len(list(folder.glob('worker-*')))}.log"
        with self.log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", MAIN, json.dumps(settings), *arguments],
                cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=stderr,
            )  # fmt: skip

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of a name that it logged so far."""
        lines = self.log.read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
        return [event for event in found if event["event"] == name]

    def seen(self, name: str) -> dict[str, Any]:
        """Wait for an event, and return it."""

        def look() -> Any:
            found = self.events(name)
            assert found or self.process.poll() is None, f"the worker ended: {self.log.read_text()}"
            return found

        event: dict[str, Any] = until(look, f"the event {name}: {self.log.read_text()}")[0]
        return event

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(PATIENCE)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts workers, and kills those that a test leaves behind."""
    workers: list[Worker] = []

    def start(settings: dict[str, Any], *arguments: str) -> Worker:
        workers.append(Worker(tmp_path, settings, *arguments))
        return workers[-1]

    yield start
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.kill()
        worker.process.wait()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with the schema in place, on SQLite and on PostgreSQL."""
    name = {"sqlite": "migrated_sqlite_url", "postgresql": "migrated_postgres_url"}[request.param]
    return str(request.getfixturevalue(name))


@contextlib.contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    """A connection in a transaction."""
    engine = sa.create_engine(urls.engine_url(url), poolclass=sa.NullPool)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def add_sessions(url: str, count: int, prefix: str = "due", **values: Any) -> None:
    """Store sessions of two tenants alike, with columns as given."""
    with SessionManager.open(url) as manager:
        manager.create_session(session_id="pattern", context={"saved": True}, protected=True)
    with connected(url) as connection:
        pattern = connection.execute(sa.select(t.sessions).where(t.sessions.c.session_id == "pattern")).one()._asdict()
        rows = [
            # Nothing is stored of the pattern's state, so nothing was saved.
            pattern
            | {"tenant": ("", "acme")[n % 2], "session_id": f"{prefix}-{n}", "protected": False, "saved_at": None}
            | values
            for n in range(count)
        ]
        connection.execute(sa.insert(t.sessions), rows)
        connection.execute(sa.delete(t.transitions).where(t.transitions.c.session_id == "pattern"))
        connection.execute(sa.delete(t.session_states).where(t.session_states.c.session_id == "pattern"))
        connection.execute(sa.delete(t.sessions).where(t.sessions.c.session_id == "pattern"))


def add_due(url: str, count: int, prefix: str = "due") -> None:
    """Store sessions whose deadline passed yesterday."""
    add_sessions(url, count, prefix, expires_at=PAST, ghost_at=None)


def in_state(url: str, state: str) -> int:
    """How many sessions are in a state."""
    with connected(url) as connection:
        found = connection.scalar(sa.select(sa.func.count()).where(t.sessions.c.state == state))
    return found or 0


def assert_whole(url: str) -> None:
    """Every session is expired with exactly one audit row, or untouched with none."""
    with connected(url) as connection:
        sessions = connection.execute(sa.select(t.sessions)).all()
        audits = connection.execute(sa.select(t.transitions).where(t.transitions.c.trigger_name == "expire")).all()
    counts: dict[tuple[str, str], int] = {}
    for audit in audits:
        key = audit.tenant, audit.session_id
        counts[key] = counts.get(key, 0) + 1
    for row in sessions:
        done = row.state == "expired"
        assert counts.get((row.tenant, row.session_id), 0) == done
        assert (row.version, row.ended_at is not None, row.expires_at is None) == (1 + done, done, done)


def job_row(url: str, job: str) -> Any:
    """A job's row, once it is there."""

    def look() -> Any:
        with connected(url) as connection:
            return connection.execute(sa.select(t.worker_jobs).where(t.worker_jobs.c.job == job)).first()

    return until(look, f"the row of {job}")


def workers_of(url: str) -> list[str]:
    """The ids of the registered workers."""
    with connected(url) as connection:
        return list(connection.scalars(sa.select(t.workers.c.worker_id)))


def test_the_worker_expires_and_prunes_for_all_tenants_and_stops_on_sigterm(
    url: str, launch: Callable[..., Worker]
) -> None:
    """Due sessions of every tenant expire, finished ones go, others stay; SIGTERM ends it with 0 and without a row."""
    add_due(url, 30)
    add_sessions(url, 20, "old", state="completed", ended_at=PAST, prune_at=PAST, expires_at=None, ghost_at=None)
    add_sessions(url, 10, "ghost", ghost_at=PAST)
    add_sessions(url, 5, "fresh", ghost_at=None)
    worker = launch(configured(url, worker={"name": "mine"}))

    until(lambda: in_state(url, "expired") == 30, "the due sessions to expire")
    until(lambda: in_state(url, "completed") == 0, "the finished sessions to go")
    until(lambda: in_state(url, "active") == 5, "the ghosts to go")
    (registered,) = workers_of(url)
    assert registered.startswith(f"mine:{worker.process.pid}:")
    assert registered == worker.seen("worker_started")["worker_id"]
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0

    assert_whole(url)
    assert workers_of(url) == []
    assert [event["reason"] for event in worker.events("worker_stopping")] == ["SIGTERM"]
    assert [event["drained"] for event in worker.events("worker_stopped")] == [True]
    done = {event["sweep"]: event for event in worker.events("sweep_done") if event["level"] == "info"}
    assert {name: event["count"] for name, event in done.items()} == {
        "expire_idle": 30, "prune_sessions": 20, "delete_ghosts": 10,
    }  # fmt: skip
    assert done["expire_idle"]["complete"]
    assert done["expire_idle"]["backlog_age"] > 3600
    assert worker.events("sweep_failed") == []


def test_sigterm_ends_a_sweep_between_two_batches(url: str, launch: Callable[..., Worker]) -> None:
    """A sweep under way is broken off whole: its lease is given back, its result says that more is due."""
    add_due(url, 1000)
    worker = launch(configured(url, batch=5, pause=0.1))
    until(lambda: in_state(url, "expired") > 10, "the sweep to begin")
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0
    assert_whole(url)
    assert 10 < in_state(url, "expired") < 1000
    row = job_row(url, "expire_idle")
    assert row.holder is None
    result = json.loads(row.last_result)
    assert (result["count"], result["complete"]) == (in_state(url, "expired"), False)


def test_two_workers_share_the_work(url: str, launch: Callable[..., Worker]) -> None:
    """Two daemons, two slots: both are registered, every session expires once, and either goes on without the other."""
    settings = configured(url, batch=10, pause=0.02, slices=2)
    workers = [launch(settings), launch(settings)]
    started = {worker.seen("worker_started")["worker_id"] for worker in workers}
    assert set(workers_of(url)) == started
    assert len(started) == 2
    add_due(url, 1000)
    until(lambda: in_state(url, "expired") == 1000, "all to expire")
    assert_whole(url)
    workers[0].signal(signal.SIGINT)
    assert workers[0].ended() == 0
    add_due(url, 10, "later")
    until(lambda: in_state(url, "expired") == 1010, "the other to go on")
    workers[1].signal(signal.SIGTERM)
    assert workers[1].ended() == 0
    assert_whole(url)
    done = [event for worker in workers for event in worker.events("sweep_done")]
    assert sum(event["count"] for event in done if event["sweep"] == "expire_idle") == 1010


def test_a_worker_killed_in_a_sweep_leaves_sessions_whole(url: str, launch: Callable[..., Worker]) -> None:
    """SIGKILL in the middle of 10,000: each is expired with its one audit row or untouched; the next does the rest."""
    add_due(url, 10_000)
    worker = launch(configured(url, batch=20, pause=0.0))
    until(lambda: in_state(url, "expired") > 200, "the sweep to begin")
    worker.signal(signal.SIGKILL)
    assert worker.ended() == -signal.SIGKILL
    assert_whole(url)
    assert 200 < in_state(url, "expired") < 10_000
    assert job_row(url, "expire_idle").holder is not None

    second = launch(configured(url, batch=1000, pause=0.0))
    until(
        lambda: any(event["sweep"] == "expire_idle" for event in second.events("sweep_skipped")),
        "the second to find the dead worker's lease",
    )
    with connected(url) as connection:  # a minute goes by
        connection.execute(sa.update(t.worker_jobs).values(lease_expires_at=PAST))
    until(lambda: in_state(url, "expired") == 10_000, "the second to do the rest")
    second.signal(signal.SIGTERM)
    assert second.ended() == 0
    assert_whole(url)


def test_a_dead_workers_row_goes(url: str, launch: Callable[..., Worker]) -> None:
    """The row of a worker without a beat for ten heartbeats is removed by another."""
    with SessionManager.open(url, tenant=ALL) as manager:
        manager.beat_worker("dead", host="h", pid=1, release="0")
    with connected(url) as connection:
        connection.execute(sa.update(t.workers).values(beat_at=PAST))
    worker = launch(configured(url))
    assert worker.seen("worker_gone")["worker_id"] == "dead"
    until(lambda: workers_of(url) == [worker.seen("worker_started")["worker_id"]], "the row to go")


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server that a test may stop."""
    try:
        binaries = find_postgres(18)
    except ServerUnavailable as reason:
        if os.environ.get("LIFECYCLE_TESTS_REQUIRE_SERVERS") == "1":
            raise
        pytest.skip(str(reason))
    with PostgresServer(binaries, settings={"fsync": "off"}) as server:
        yield server


def test_the_worker_survives_an_outage(own_server: PostgresServer, launch: Callable[..., Worker]) -> None:
    """Without a database at its start it waits; when the database goes, it says so once and works on as it returns."""
    url = own_server.create_database("mine")
    migrate.upgrade(url)
    own_server.stop()
    settings = configured(url)
    settings["database"]["connect_timeout"] = 1
    worker = launch(settings)
    worker.seen("database_unavailable")
    own_server.start()
    worker.seen("worker_started")
    assert [len(worker.events(name)) for name in ("database_unavailable", "database_recovered")] == [1, 1]

    own_server.stop("immediate")
    until(lambda: len(worker.events("database_unavailable")) == 2, "the worker to notice")
    own_server.start()
    add_due(url, 10)
    until(lambda: in_state(url, "expired") == 10, "the worker to work on")
    until(lambda: len(worker.events("database_recovered")) == 2, "the worker to say so")
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0
    assert len(worker.events("database_unavailable")) == 2
    assert_whole(url)


def test_the_wait_for_a_missing_database_can_be_ended(tmp_path: Path, launch: Callable[..., Worker]) -> None:
    """SIGTERM ends a worker that has not found its database yet, with 0."""
    settings = configured(f"postgresql://nobody@/none?host={tmp_path}")
    worker = launch(settings)
    worker.seen("database_unavailable")
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0
    assert worker.events("worker_started") == []


def test_a_database_without_the_schema_is_refused(sqlite_url: str, launch: Callable[..., Worker]) -> None:
    """It exits with the code of an outdated schema and says which command to run."""
    worker = launch(configured(sqlite_url))
    assert worker.ended() == 11
    (event,) = worker.events("worker_refused")
    assert "lifecycle db upgrade" in event["error"]


def test_the_watchdog_ends_a_hung_worker(migrated_sqlite_url: str, launch: Callable[..., Worker]) -> None:
    """A run that does not return ends the process with 70, and the event shows where it hung; other jobs ran on."""
    settings = configured(migrated_sqlite_url)
    for job in settings["worker"]["jobs"].values():
        job["budget"] = 1
    settings["worker"]["watchdog"] = 3
    worker = launch(settings, "hang")
    assert worker.ended() == 70
    (event,) = worker.events("watchdog_expired")
    assert event["sweep"] == "expire_idle"
    assert "wait" in event["stack"]
    assert len([event for event in worker.events("sweep_done") if event["sweep"] == "expire_approvals"]) > 1


def test_a_hung_worker_ends_at_the_drain_timeout(migrated_sqlite_url: str, launch: Callable[..., Worker]) -> None:
    """A batch that outlives the drain timeout is left behind, and the exit code says so."""
    worker = launch(configured(migrated_sqlite_url, worker={"drain_timeout": 1}), "hang")
    job_row(migrated_sqlite_url, "expire_idle")
    worker.seen("worker_started")
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 75
    assert [event["drained"] for event in worker.events("worker_stopped")] == [False]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_it_at_once(
    migrated_sqlite_url: str, launch: Callable[..., Worker], number: signal.Signals, code: int
) -> None:
    """Whoever does not want to wait for the drain sends the signal again."""
    worker = launch(configured(migrated_sqlite_url), "hang")
    job_row(migrated_sqlite_url, "expire_idle")
    worker.seen("worker_started")
    worker.signal(number)
    worker.seen("worker_stopping")
    worker.signal(number)
    assert worker.ended() == code


def in_process(url: str, **job: Any) -> Settings:
    """The settings of a manager in this process."""
    return Settings(**configured(url, **job))


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    """The events of a name that this process logged."""
    messages: list[Any] = [record.msg for record in caplog.records]
    return [message for message in messages if isinstance(message, dict) and message["event"] == event]


def test_a_manager_sweeps_its_tenant_between_start_and_stop(url: str) -> None:
    """`start` expires the tenant's own sessions in the background, `stop` ends that; both may be called again."""
    add_due(url, 20)
    with SessionManager.open(in_process(url), tenant="acme") as manager:
        manager.start()
        manager.start()
        until(lambda: in_state(url, "expired") == 10, "the tenant's sessions to expire")
        manager.stop()
        manager.stop()
        add_due(url, 2, "again")
        assert job_row(url, "expire_idle:acme").holder is None
        manager.start()
        until(lambda: in_state(url, "expired") == 11, "the tenant's session to expire after a new start")
    assert_whole(url)
    assert not [thread for thread in threading.enumerate() if "APScheduler" in thread.name]


def test_a_job_that_another_worker_has_is_skipped(url: str) -> None:
    """`run_job` gives None while each of the job's slots is leased, and the result once one is free."""
    add_due(url, 3)
    with SessionManager.open(in_process(url, slices=2), tenant=ALL) as manager:
        upkeep = Upkeep(manager)
        terms = [manager.take_job("expire_idle", holder="other", ttl=60, slice_no=slot) for slot in (0, 1)]
        assert terms == [1, 1]
        assert upkeep.run_job("expire_idle") is None
        assert manager.end_job("expire_idle", holder="other", term=1, slice_no=1)
        done = upkeep.run_job("expire_idle")
        assert done is not None
        assert (done["count"], done["complete"]) == (3, True)
        row = next(row for row in manager.list_workers()["jobs"] if row["slice_no"] == 1)
        result = json.loads(row["last_result"])
        assert datetime.fromisoformat(result.pop("finished_at")) == row["last_finished_at"]
        assert (result, row["term"], row["last_error"]) == (done, 2, None)


def test_a_failed_sweep_is_told_and_the_others_go_on(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that raises logs `sweep_failed` and leaves its error in its row; its lease is free again."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    add_sessions(url, 1, "ghost", ghost_at=PAST)
    monkeypatch.setattr(SessionManager, "expire_idle", fail)
    with SessionManager.open(in_process(url), tenant=ALL) as manager:
        manager.start()
        until(lambda: in_state(url, "active") == 0, "the other job to run")
        until(lambda: job_row(url, "expire_idle").last_error, "the error to be stored")
    row = job_row(url, "expire_idle")
    assert (row.holder, row.last_error) == (None, "RuntimeError: broken")
    assert told(caplog, "sweep_failed")[0]["sweep"] == "expire_idle"


def test_what_a_deleted_session_left_is_trimmed_after_the_prune(url: str) -> None:
    """The prune job removes audit rows of sessions that are long gone, batch by batch."""
    gone = {"tenant": "", "seq": 1, "trigger_name": "delete", "from_state": "ended", "version": 2, "created_at": PAST}
    with connected(url) as connection:
        connection.execute(sa.insert(t.transitions), [gone | {"session_id": f"gone-{n}"} for n in range(25)])
    settings = configured(url) | {"housekeeping": {"tombstones": 60}}
    settings["worker"]["jobs"]["prune_sessions"]["batch"] = 10
    with SessionManager.open(Settings(**settings), tenant=ALL) as manager:
        done = Upkeep(manager).run_job("prune_sessions")
    assert done is not None
    assert (done["count"], done["trimmed"]) == (0, 25)


def test_an_incarnation_is_unique_and_fits_its_column() -> None:
    """Two runs of one worker have different ids, which begin with its name."""
    assert incarnation("mine") != incarnation("mine")
    assert incarnation("mine").startswith("mine:")
    assert len(incarnation("n" * 255)) == 255
