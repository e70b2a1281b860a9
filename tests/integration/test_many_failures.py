"""Calls for many sessions where something goes wrong: each transaction is there as a whole or not at all."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lifecycle import SchemaOutdated, SessionManager, Settings, StorageUnavailable, VersionConflict, migrate, urls
from lifecycle.drivers import postgresql_side_by_side
from lifecycle.models import tables as t
from lifecycle.operations import many
from tests.managers import connected, opened

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60
NAMES = [f"s-{i:02}" for i in range(24)]
KINDS = ["sync", "async"]

# Saves the same sessions again and again, the step being the number of the round; backwards if asked. Waits for a line
# before it begins, and says after each round what it was told.
SAVER = """
import sys
from lifecycle import SessionManager, Settings
from lifecycle.operations import many

url, at_once, rounds, backwards, names = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5:]
many.AT_ONCE = at_once
with SessionManager.open(Settings(database={"url": url, "connect_timeout": 30})) as manager:
    manager.get_session(names[0])
    print("ready", flush=True)
    sys.stdin.readline()
    for step in range(1, rounds + 1):
        saves = [{"session_id": name, "step": step, "context": {"step": step}} for name in names]
        outcomes = manager.save_many(saves[::-1] if backwards == "yes" else saves)
        wrong = [repr(one) for one in outcomes if not isinstance(one, int)]
        print(wrong or step, flush=True)
"""


@contextlib.contextmanager
def saver(url: str, *, at_once: int, rounds: int, backwards: bool = False) -> Iterator["subprocess.Popen[str]"]:
    """A process that saves, once it is told to."""
    words = [url, str(at_once), str(rounds), "yes" if backwards else "no", *NAMES]
    process = subprocess.Popen(
        [sys.executable, "-c", SAVER, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


def go(process: "subprocess.Popen[str]") -> None:
    """Have it begin."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def made(url: str) -> None:
    """The sessions."""
    with SessionManager.open(url) as manager:
        for name in NAMES:
            manager.create_session(session_id=name)


def versions(url: str) -> dict[str, int]:
    """Which version each session is at."""
    with connected(url) as connection:
        rows = connection.execute(sa.select(t.sessions.c.session_id, t.sessions.c.version))
        return {row.session_id: row.version for row in rows}


def deadlocks(connection: sa.Connection) -> int:
    """How many deadlocks the server has seen."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_stat_force_next_flush()"))
        query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        return int(connection.execute(sa.text(query)).scalar_one())
    if connection.dialect.name in {"mysql", "mariadb"}:
        return int(connection.execute(sa.text("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")).one()[1])
    return 0


def until(found: Callable[[], Any], pause: float = 0.005) -> Any:
    """Poll until something is there, and return it."""
    deadline = time.monotonic() + PATIENCE
    while not (there := found()):
        assert time.monotonic() < deadline
        threading.Event().wait(pause)
    return there


@pytest.fixture(params=["migrated_postgres_url", "migrated_postgres15_url", "migrated_mariadb_url"])
def server_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with the schema in place on a server, of each kind in turn."""
    return str(request.getfixturevalue(request.param))


def test_opposite_orders_do_not_deadlock(shared_url: str) -> None:
    """Two processes save the same sessions at once, one of them backwards: every save of both is made."""
    made(shared_url)
    rounds = 25
    with connected(shared_url) as connection:
        before = deadlocks(connection)
    with (
        saver(shared_url, at_once=16, rounds=rounds) as one,
        saver(shared_url, at_once=16, rounds=rounds, backwards=True) as other,
    ):
        go(one)
        go(other)
        for process in (one, other):
            said, _ = process.communicate(timeout=PATIENCE)
            assert said.split() == [str(step) for step in range(1, rounds + 1)]
    assert versions(shared_url) == dict.fromkeys(NAMES, 1 + 2 * rounds)
    with connected(shared_url) as connection:
        assert deadlocks(connection) == before


def test_single_saves_beside_it(shared_url: str) -> None:
    """Threads that save one of the sessions each, all the while, and a sign of life of all: nobody is refused."""
    made(shared_url)
    with SessionManager.open(Settings(database={"url": shared_url, "connect_timeout": 30})) as manager:
        saves = [{"session_id": name, "plan": ["many"]} for name in NAMES]

        def single(name: str) -> int:
            return [manager.save_state(name, step=i) for i in range(10)][-1]

        with ThreadPoolExecutor(6) as pool:
            singles = [pool.submit(single, name) for name in NAMES[::6]]
            for _ in range(10):
                assert all(isinstance(one, int) for one in manager.save_many(saves))
                assert all(manager.touch_many(NAMES))
            assert all(one.result() for one in singles)
        assert {manager.get_session(name).version for name in NAMES[::6]} == {21}  # type: ignore[union-attr]


def test_a_process_that_is_killed_leaves_whole_transactions(shared_url: str) -> None:
    """Wherever it was: of the sessions of one transaction, all have what it saved last, or none."""
    made(shared_url)
    for least in (2, 5, 9):
        with saver(shared_url, at_once=8, rounds=100_000) as process:
            go(process)
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(least)] == [f"{step}\n" for step in range(1, least + 1)]
        with SessionManager.open(shared_url) as manager:
            states = [manager.load_state(name) for name in NAMES]
        steps = [None if state is None else (state.step, state.context) for state in states]
        blocks = [steps[start : start + 8] for start in range(0, len(steps), 8)]
        assert all(block == [(block[0][0], {"step": block[0][0]})] * 8 for block in blocks if block[0] is not None)
        assert all(block[0] is not None and block[0][0] is not None and block[0][0] >= least for block in blocks)


@contextlib.contextmanager
def locked(url: str, name: str) -> Iterator[Callable[[], None]]:
    """Somebody else has a session locked; call it to cut off whoever waits for that."""
    with connected(url) as holder, migrate.connected(url, autocommit=True) as other:
        holder.execute(sa.select(t.sessions.c.version).where(t.sessions.c.session_id == name).with_for_update())
        if holder.dialect.name == "postgresql":
            find, cut = "SELECT pid FROM pg_locks WHERE NOT granted", "SELECT pg_terminate_backend({})"
        else:
            find = "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
            cut = "KILL {}"

        def cut_off() -> None:
            # MariaDB keeps what it told, the test before this one too, for as long as it is asked within a tenth of a second.
            threading.Event().wait(0.25)
            waiting = until(lambda: other.execute(sa.text(find)).scalar(), pause=0.25)
            other.execute(sa.text(cut.format(int(waiting))))

        yield cut_off


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_that_is_lost_midway(server_url: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the transaction is there, each of its saves says so, and those after it were not tried."""
    monkeypatch.setattr(many, "AT_ONCE", 16)
    # However long it takes to find who waits: he is not to have begun with smaller transactions by then.
    monkeypatch.setattr(postgresql_side_by_side, "_FIRST_PATIENCE_MS", 1000 * PATIENCE)
    made(server_url)
    with opened(Settings(database={"url": server_url, "notify": False}), kind) as manager:
        with ThreadPoolExecutor(1) as pool, locked(server_url, NAMES[9]) as cut_off:
            call = pool.submit(manager.save_many, [{"session_id": name, "step": 1} for name in NAMES])
            cut_off()
            outcomes = call.result(PATIENCE)
        assert {type(one) for one in outcomes} == {StorageUnavailable}
        assert ["not tried" in str(one) for one in outcomes] == [False] * 16 + [True] * 8
        assert not any(one.outcome_unknown for one in outcomes[16:])
        assert len(set(map(id, outcomes))) == len(NAMES)
        assert versions(server_url) == dict.fromkeys(NAMES, 1)
        assert manager.save_many([{"session_id": name, "step": 1} for name in NAMES]) == [2] * len(NAMES)


_REFUSING = {
    "sqlite": (
        "CREATE TRIGGER refuse BEFORE UPDATE ON sessions WHEN new.session_id = 's-07'"
        " BEGIN SELECT RAISE(ABORT, 'not this one'); END"
    ),
    "postgresql": (
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;"
        "CREATE TRIGGER refuse BEFORE UPDATE ON sessions FOR EACH ROW WHEN (new.session_id = 's-07')"
        " EXECUTE FUNCTION refuse()"
    ),
    "mariadb": (
        "CREATE TRIGGER refuse BEFORE UPDATE ON sessions FOR EACH ROW IF new.session_id = 's-07' THEN"
        " SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not this one'; END IF"
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_database_itself_refuses_is_that_items_alone(shared_url: str, kind: str) -> None:
    """An error of a statement's, and a wrong version beside it; all others are saved."""
    made(shared_url)
    with connected(shared_url) as connection:
        dialect = urls.dialect_name(shared_url)
        connection.exec_driver_sql(_REFUSING[dialect])
    try:
        with opened(Settings(database={"url": shared_url}), kind) as manager:
            saves: list[dict[str, Any]] = [{"session_id": name, "step": 1} for name in NAMES]
            saves[11]["expected_version"] = 9
            outcomes = manager.save_many(saves)
            stale, failed = outcomes.pop(11), outcomes.pop(7)
            assert type(stale) is VersionConflict
            assert type(failed) is StorageUnavailable
            assert "not this one" in str(failed)
            assert not failed.outcome_unknown
            assert outcomes == [2] * 22
            assert manager.get_session("s-07").version == 1
    finally:
        with connected(shared_url) as connection:
            connection.exec_driver_sql("DROP TRIGGER refuse" + (" ON sessions" if dialect == "postgresql" else ""))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "url", ["postgresql://nobody@/none?host=/tmp/not-there", "mysql://nobody@/none?unix_socket=/tmp/not-there"]
)
def test_a_server_that_is_away_is_tried_once(url: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not again for each of thousands."""
    monkeypatch.setattr(many, "AT_ONCE", 8)
    settings = Settings(database={"url": url, "connect_timeout": 1, "notify": False})
    with opened(settings, kind) as manager:
        outcomes = manager.save_many([{"session_id": name, "step": 1} for name in NAMES])
    assert {type(one) for one in outcomes} == {StorageUnavailable}
    assert ["not tried" in str(one) for one in outcomes] == [False] * 8 + [True] * 16


@pytest.mark.parametrize("kind", KINDS)
def test_a_database_without_tables_is_told(database_url: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each outcome names the command to run."""
    monkeypatch.setattr(many, "AT_ONCE", 8)
    with opened(Settings(database={"url": database_url}), kind) as manager:
        outcomes = manager.save_many([{"session_id": name, "step": 1} for name in NAMES])
    assert {type(one) for one in outcomes} == {SchemaOutdated}
    assert all("lifecycle db upgrade" in str(one) for one in outcomes)
