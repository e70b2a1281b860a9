"""Sweeps that are large, shared or slow: what they read, what they wait for, and what they leave behind."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from lifecycle import ALL, SessionManager, Settings, migrate
from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.recipes import book
from lifecycle.upkeep import Upkeep
from tests.managers import backdate, connected

PAST = datetime.now(UTC) - timedelta(days=1)
PATIENCE = 60.0


@pytest.fixture(params=["postgresql", "postgresql15", "mariadb"])
def server_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database in which rows are locked one by one, of each kind in turn."""
    names = {"postgresql": "postgres", "postgresql15": "postgres15", "mariadb": "mariadb"}
    return str(request.getfixturevalue(f"migrated_{names[request.param]}_url"))


def add_sessions(url: str, count: int, prefix: str = "s", *, tenant: str = "", **values: Any) -> None:
    """Store sessions that are due to expire, a second apart, each with its line in the audit log and a message."""
    at = datetime.now(UTC)
    row = {
        "tenant": tenant, "kind": "chat", "state": "active", "metadata": "{}", "config": "{}", "version": 1,
        "next_seq": 3, "message_count": 1, "protected": False, "idle_override": False, "lease_epoch": 0, "attempts": 0,
        "rescues": 0, "runs": False, "pending_approvals": 0, "created_at": PAST, "updated_at": PAST, "listed_at": PAST,
        "last_active_at": PAST, "idle_active": 3600, "idle_suspended": 3600,
    }  # fmt: skip
    ids = [f"{prefix}-{n:05}" for n in range(count)]
    own = [{"tenant": tenant, "session_id": one} for one in ids]
    with connected(url) as connection:
        due = [{"expires_at": at - timedelta(seconds=count - n)} for n in range(count)]
        connection.execute(sa.insert(t.sessions), [row | k | d | values for k, d in zip(own, due, strict=True)])
        line = {"seq": 1, "trigger_name": "create", "to_state": "active", "version": 1, "created_at": PAST, "txid": 1}
        connection.execute(sa.insert(t.transitions), [line | k for k in own])
        said = {"seq": 2, "message_id": "m", "role": "user", "content": "x" * 100, "encoding": "text"}
        connection.execute(sa.insert(t.messages), [said | k | {"created_at": PAST} for k in own])


def open_manager(url: str, **database: Any) -> SessionManager:
    """A manager of all tenants."""
    return SessionManager.open(Settings(database={"url": url, "notify": False, **database}), tenant=ALL)


def lines_of(url: str, trigger: str) -> list[str]:
    """The ids of the sessions that have such lines in the audit log, one for each line."""
    with connected(url) as connection:
        return list(
            connection.scalars(sa.select(t.transitions.c.session_id).where(t.transitions.c.trigger_name == trigger))
        )


@contextmanager
def transaction(url: str) -> Iterator[sa.Connection]:
    """A transaction as the drivers begin theirs, which is rolled back in the end."""
    with migrate.connected(url) as connection:
        if connection.dialect.name == "mysql":
            connection.exec_driver_sql("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            connection.commit()
        with connection.begin() as begun:
            yield connection
            begun.rollback()


# Shared sweeps

_SWEEP = """
import json, sys
from lifecycle import ALL, SessionManager, Settings, migrate
with SessionManager.open(Settings(database={"url": sys.argv[1], "notify": False}), tenant=ALL) as manager:
    print("ready", flush=True)
    sys.stdin.readline()
    for name in ("expire_idle", "prune_sessions"):
        print(json.dumps(getattr(manager, name)(batch=7).session_ids), flush=True)
        sys.stdin.readline()
"""


def test_processes_that_share_a_sweep_do_each_session_once(server_url: str) -> None:
    """Three processes expire 600 sessions, and then remove them, each its own ones, together all of them."""
    add_sessions(server_url, 600)
    everybody = {f"s-{n:05}" for n in range(600)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _SWEEP, server_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]

    def swept() -> list[str]:
        """What each process answers to a line, one after the other."""
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return [one for process in processes for one in json.loads(process.stdout.readline())]  # type: ignore[union-attr]

    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        done = swept()
        assert (len(done), set(done)) == (600, everybody)
        assert sorted(lines_of(server_url, "expire")) == sorted(everybody)
        backdate(server_url, t.sessions, prune_at=PAST)
        done = swept()
        assert (len(done), set(done)) == (600, everybody)
        assert sorted(lines_of(server_url, "delete")) == sorted(everybody)
    finally:
        for process in processes:
            process.communicate("\n", timeout=PATIENCE)
    with connected(server_url) as connection:
        for table in (t.sessions, t.messages):
            assert connection.scalar(sa.select(sa.func.count()).select_from(table)) == 0


@pytest.mark.parametrize("tenant", [ALL, ""], ids=["all tenants", "one"])
@pytest.mark.parametrize("sweep", ["expire_idle", "prune_sessions"])
def test_a_sweep_passes_over_what_another_has(server_url: str, sweep: str, tenant: Any) -> None:
    """It waits for nobody: what another one is at is left to it, and what that one gives up is done by the next."""
    finished: dict[str, Any] = {"state": "completed", "expires_at": None, "ended_at": PAST, "prune_at": PAST}
    add_sessions(server_url, 30, **(finished if sweep == "prune_sessions" else {}))
    held = [f"s-{n:05}" for n in (0, 1, 2, 15, 29)]
    with SessionManager.open(Settings(database={"url": server_url}), tenant=tenant) as manager:
        with transaction(server_url) as connection:
            for one in held:
                own = t.sessions.c.tenant == "", t.sessions.c.session_id == one
                connection.execute(sa.select(t.sessions.c.session_id).where(*own).with_for_update())
            report = getattr(manager, sweep)(batch=10)
            assert (report.count, report.complete) == (25, True)
            assert not set(report.session_ids) & set(held)
        assert getattr(manager, sweep)().session_ids == held


@pytest.mark.parametrize("tenant", [None, ""], ids=["all tenants", "one"])
def test_a_batch_holds_what_it_acts_on_and_nothing_else(server_url: str, tenant: str | None) -> None:
    """While it is under way, a second one finds the others that are due, and whoever is not due is free to write."""
    add_sessions(server_url, 200)
    add_sessions(server_url, 200, "later", expires_at=datetime.now(UTC) + timedelta(days=1))
    with migrate.connected(server_url) as connection:
        dialect = connection.dialect.name
        connection.exec_driver_sql("ANALYZE TABLE sessions" if dialect == "mysql" else "ANALYZE sessions")
        connection.commit()
    request = r.SweepBatch(r.Due(tenant, "expire_idle"), 10, None, None, ("{}", 60))
    recipe = book.RECIPES[dialect][r.SweepBatch](request)

    def answer(connection: sa.Connection, step: Any) -> list[dict[str, Any]]:
        compiled = step[0].on(dialect)
        found: Any = connection.exec_driver_sql(compiled.sql, dict(compiled.bind(step[1]))).all()
        rows: list[dict[str, Any]] = compiled.read(found)
        return rows

    with open_manager(server_url) as manager, transaction(server_url) as connection:
        # No further than the sessions are locked: the clock is read, then they are.
        clock = answer(connection, next(recipe))
        assert len(answer(connection, recipe.send(clock))) == 10
        recipe.close()
        one = manager.for_tenant("")
        assert one.save_state("later-00000", step=1) > 1
        assert one.touch_session("s-00199")
        # 200 were due, ten are held, and one has just been touched.
        assert manager.expire_idle().count == 189
    with open_manager(server_url) as manager:
        assert manager.expire_idle().count == 10


# What a sweep leaves in the indexes


class Reads:
    """Index entries that PostgreSQL reads through an index, those of removed rows included that it does not know yet."""

    def __init__(self, url: str, index: str) -> None:
        self.url = url
        self.index = index

    def of(self, call: Callable[[SessionManager], Any]) -> tuple[int, Any]:
        """How many a call reads, and what it gives; with a connection of its own, which tells its counts when it ends."""
        before = self._count()
        with open_manager(self.url) as manager:
            answer = call(manager)
        return self._count() - before, answer

    def _count(self) -> int:
        with psycopg.connect(self.url, autocommit=True) as connection:
            deadline = time.monotonic() + PATIENCE
            others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND application_name <> 'holder' AND pid <> pg_backend_pid()"
            while connection.execute(others).fetchone() != (0,):
                assert time.monotonic() < deadline
            row = connection.execute(
                "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = %s", (self.index,)
            ).fetchone()
            assert row is not None
            return int(row[0])


@contextmanager
def old_snapshot(url: str) -> Iterator[None]:
    """A transaction that began before: nothing that was removed since may be forgotten, as it may still look."""
    with psycopg.connect(url, application_name="holder") as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT count(*) FROM workers")
        yield


@pytest.fixture
def unattended_url(migrated_postgres_url: str) -> str:
    """The URL of a database that nobody vacuums or analyses by himself."""
    with psycopg.connect(migrated_postgres_url, autocommit=True) as connection:
        for table in t.metadata.tables:
            connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)".encode())
    return migrated_postgres_url


SWEEPS = {"expire_idle": "ix_sessions_due", "prune_sessions": "ix_sessions_finished"}


def prepare(url: str, sweep: str, count: int) -> None:
    """Store sessions that are due for a sweep."""
    add_sessions(url, count)
    if sweep == "prune_sessions":
        with connected(url) as connection:
            columns = t.sessions.c
            values = {"state": "completed", "ended_at": columns.expires_at, "prune_at": columns.expires_at}
            connection.execute(sa.update(t.sessions).values({**values, "expires_at": None}))


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_sweep_after_a_large_one_reads_nothing(unattended_url: str, sweep: str) -> None:
    """Before any vacuum, too: what the large one left in the index it has passed by itself, and marked as gone."""
    prepare(unattended_url, sweep, 2000)
    reads = Reads(unattended_url, SWEEPS[sweep])
    read, report = reads.of(lambda manager: getattr(manager, sweep)(batch=100))
    assert report.count == 2000
    # Each entry once to act on it, and once more in the end.
    assert read <= 2 * 2000 + 200
    read, report = reads.of(lambda manager: getattr(manager, sweep)())
    assert (read, report.count) == (0, 0)


@pytest.mark.parametrize("sweep", SWEEPS)
def test_no_batch_reads_what_those_before_left(unattended_url: str, sweep: str) -> None:
    """Not even while an old transaction keeps what is gone from being marked so: twenty batches read each entry twice."""
    prepare(unattended_url, sweep, 2000)
    reads = Reads(unattended_url, SWEEPS[sweep])
    with old_snapshot(unattended_url):
        read, report = reads.of(lambda manager: getattr(manager, sweep)(batch=100))
    assert (report.count, report.batches) == (2000, 20)
    assert read <= 2 * 2000 + 200


# Growth


def test_sizes_level_off(unattended_url: str) -> None:
    """Twenty times sessions come, expire, are removed and forgotten: from the fifth on nothing is larger than it was."""
    sizes: list[dict[str, int]] = []
    # Deadlines are past as soon as they are stamped.
    policies = {"default": {"retention": "1s"}}
    settings = Settings(database={"url": unattended_url}, policies=policies, housekeeping={"tombstones": 60})
    with (
        SessionManager.open(settings, tenant=ALL) as manager,
        psycopg.connect(unattended_url, autocommit=True) as connection,
    ):
        for cycle in range(20):
            add_sessions(unattended_url, 400, f"cycle-{cycle:02}")
            assert manager.expire_idle(batch=100).count == 400
            backdate(unattended_url, t.sessions, t.sessions.c.ended_at.is_not(None), prune_at=PAST)
            assert manager.prune_sessions(batch=100).count == 400
            backdate(unattended_url, t.transitions, created_at=PAST)
            assert manager.trim(batch=100) == 400
            connection.execute("VACUUM")
            rows = connection.execute(
                "SELECT relname, pg_relation_size(oid) FROM pg_class WHERE relkind IN ('r', 'i')"
                " AND relname ~ '^(ix_|uq_|pk_)?session'"
            ).fetchall()
            sizes.append(dict(rows))
    assert max(sizes[4].values()) > 0
    grown = {name: (sizes[4][name], size) for name, size in sizes[-1].items() if size > sizes[4][name]}
    assert grown == {}


# Statements that take too long


def test_a_batch_that_takes_too_long_is_made_smaller(
    migrated_postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The job goes on with a quarter of it, does all there is, and it is no outage."""
    add_sessions(migrated_postgres_url, 60)
    with psycopg.connect(migrated_postgres_url) as connection:
        connection.execute(
            "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END'"
        )
        connection.execute("CREATE TRIGGER dawdle BEFORE UPDATE ON sessions FOR EACH ROW EXECUTE FUNCTION dawdle()")
    settings = Settings(
        database={"url": migrated_postgres_url, "statement_timeout": 1},
        worker={"jobs": {"expire_idle": {"batch": 60}}},
    )
    with SessionManager.open(settings, tenant=ALL) as manager:
        done = Upkeep(manager).run_job("expire_idle")
    assert done is not None
    assert (done["count"], done["complete"]) == (60, True)
    told: list[Any] = [record.msg for record in caplog.records]
    reduced = [one["batch"] for one in told if isinstance(one, dict) and one["event"] == "sweep_batch_reduced"]
    assert reduced == [15]
    assert sorted(lines_of(migrated_postgres_url, "expire")) == [f"s-{n:05}" for n in range(60)]
