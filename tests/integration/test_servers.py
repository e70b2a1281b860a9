"""The servers that all other tests stand on."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pymysql
import pytest

from tests.servers import MariaDBServer, PostgresServer, ServerFailed, ServerUnavailable, find_mariadb, find_postgres

ROOT = Path(__file__).parents[2]
TOO_LONG = 30.0

Server = PostgresServer | MariaDBServer

SERVERS: dict[str, Callable[[], Server]] = {
    "postgresql": lambda: PostgresServer(find_postgres(18)),
    "postgresql15": lambda: PostgresServer(find_postgres(15)),
    "mariadb": lambda: MariaDBServer(find_mariadb()),
}
EXPRESSIONS = {
    "postgresql": "PostgresServer(find_postgres(18))",
    "postgresql15": "PostgresServer(find_postgres(15))",
    "mariadb": "MariaDBServer(find_mariadb())",
}


def _make(kind: str) -> Server:
    try:
        return SERVERS[kind]()
    except ServerUnavailable as reason:
        if os.environ.get("LIFECYCLE_TESTS_REQUIRE_SERVERS") == "1":
            raise
        pytest.skip(str(reason))


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of each kind in turn, for one test alone."""
    with _make(request.param) as started:
        yield started


def _rows(server: Server, database: str, *statements: str) -> list[tuple[object, ...]]:
    """Run statements on a connection of their own and return the rows of the last one."""
    connection = _connect(server, database)
    with contextlib.closing(connection), connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def _connect(server: Server, database: str) -> Any:
    if isinstance(server, PostgresServer):
        return psycopg.connect(server.url(database), autocommit=True)
    return pymysql.connect(unix_socket=str(server.socket), user="root", database=database, autocommit=True)


def _ends(pid: int) -> bool:
    """Wait until the process is gone, or a zombie that nobody collects; say whether that happened in time."""
    deadline = time.monotonic() + TOO_LONG
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


def test_committed_rows_survive_sigkill(server: Server) -> None:
    """What was committed is there after every process of the server was killed and it was started again."""
    server.create_database("kept")
    _rows(server, "kept", "CREATE TABLE t (n integer)", "INSERT INTO t VALUES (42)")
    before = server.pid

    server.kill()
    assert not psutil.pid_exists(before)
    server.start()

    assert before != server.pid
    assert _rows(server, "kept", "SELECT n FROM t") == [(42,)]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_restart_keeps_the_data(server: Server, mode: str) -> None:
    """A stopped server comes back on the same data, however it was stopped."""
    server.create_database("kept")
    _rows(server, "kept", "CREATE TABLE t (n integer)", "INSERT INTO t VALUES (42)")

    server.restart("fast" if mode == "fast" else "immediate")

    assert _rows(server, "kept", "SELECT n FROM t") == [(42,)]


def test_commits_are_durable_and_nothing_listens_on_the_network(server: Server) -> None:
    """Unless told otherwise, a server flushes every commit to disk; its only door is the unix socket."""
    if isinstance(server, PostgresServer):
        assert _rows(server, "postgres", "SHOW fsync") == [("on",)]
        assert _rows(server, "postgres", "SHOW synchronous_commit") == [("on",)]
    else:
        assert _rows(server, "mysql", "SELECT @@innodb_flush_log_at_trx_commit") == [(1,)]
    assert psutil.Process(server.pid).net_connections(kind="inet") == []


def test_version_is_that_of_the_running_server(server: Server) -> None:
    """The version is told as the server itself tells it."""
    query = "SHOW server_version" if isinstance(server, PostgresServer) else "SELECT version()"
    database = "postgres" if isinstance(server, PostgresServer) else "mysql"
    assert str(_rows(server, database, query)[0][0]).startswith(server.version)


def test_settings_take_effect_at_the_next_start(server: Server) -> None:
    """Settings changed on the object are those of the server after a restart."""
    server.settings["max_connections"] = "37"
    server.restart()
    if isinstance(server, PostgresServer):
        assert _rows(server, "postgres", "SHOW max_connections") == [("37",)]
    else:
        assert _rows(server, "mysql", "SELECT @@max_connections") == [(37,)]


def test_a_failed_start_shows_the_log(server: Server) -> None:
    """A server that cannot start says why, and can be started when the reason is gone."""
    server.stop()
    server.settings["no_such_setting"] = "1"
    with pytest.raises(ServerFailed, match=r"no.such.setting"):
        server.start()
    del server.settings["no_such_setting"]
    server.start()


def test_data_can_live_elsewhere(tmp_path: Path) -> None:
    """A data directory given by the test is used, also where other users may not go, and stays after the end."""
    _make("postgresql").close()
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    data = hidden / "data"
    data.mkdir()
    with PostgresServer(find_postgres(18), data=data) as server:
        assert _rows(server, "postgres", "SHOW data_directory") == [(str(data),)]
    assert (data / "PG_VERSION").read_text() == "18\n"


def test_the_directory_is_gone_after_the_end(server: Server) -> None:
    """Nothing of a closed server is left, neither a process nor a file."""
    pid, directory = server.pid, server.directory
    server.close()
    assert _ends(pid)
    assert not directory.exists()


def test_a_dropped_database_is_gone_whoever_uses_it(server: Server) -> None:
    """A forgotten connection does not keep a database from being dropped, nor its name from being used again."""
    server.create_database("again")
    with contextlib.closing(_connect(server, "again")):
        server.drop_database("again")
    server.create_database("again")


def test_a_postgresql_database_can_copy_another(postgres_server: PostgresServer) -> None:
    """A database made from a template holds what the template held, and goes its own way."""
    postgres_server.create_database("original")
    _rows(postgres_server, "original", "CREATE TABLE t (n integer)", "INSERT INTO t VALUES (42)")
    postgres_server.create_database("copy", template="original")
    _rows(postgres_server, "copy", "DELETE FROM t")
    assert _rows(postgres_server, "original", "SELECT n FROM t") == [(42,)]
    for name in ("copy", "original"):
        postgres_server.drop_database(name)


def test_an_emptied_mariadb_database_keeps_its_schema(mariadb_server: MariaDBServer) -> None:
    """Emptying removes all rows but those of the table to keep, although another connection holds them locked."""
    mariadb_server.create_database("emptied")
    _rows(
        mariadb_server,
        "emptied",
        "CREATE TABLE kept (n integer)",
        "CREATE TABLE parent (id integer PRIMARY KEY AUTO_INCREMENT)",
        "CREATE TABLE child (id integer REFERENCES parent (id))",
        "INSERT INTO kept VALUES (1)",
        "INSERT INTO parent VALUES (7)",
        "INSERT INTO child VALUES (7)",
    )
    with contextlib.closing(_connect(mariadb_server, "emptied")) as forgotten:
        forgotten.begin()
        forgotten.cursor().execute("INSERT INTO parent VALUES (8)")
        mariadb_server.empty_database("emptied", keep="kept")

    counts = "SELECT (SELECT count(*) FROM kept), (SELECT count(*) FROM parent), (SELECT count(*) FROM child)"
    assert _rows(mariadb_server, "emptied", counts) == [(1, 0, 0)]
    assert _rows(mariadb_server, "emptied", "INSERT INTO parent VALUES () RETURNING id") == [(1,)]
    mariadb_server.drop_database("emptied")


def test_only_the_main_thread_starts_servers(server: Server) -> None:
    """A start from another thread is refused: the server would die with that thread."""
    server.stop()
    errors: list[Exception] = []

    def start() -> None:
        try:
            server.start()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert [str(error) for error in errors] == [
        "start servers from the main thread: they die with the thread that started them"
    ]
    server.start()


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_dies_with_the_process_that_started_it(kind: str) -> None:
    """A test run that is killed with SIGKILL leaves no server behind."""
    _make(kind).close()
    program = f"""
import signal
from tests.servers import *
server = {EXPRESSIONS[kind]}
server.start()
print(server.pid, server.directory, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, directory = parent.stdout.readline().split()
        family = [int(pid), *(child.pid for child in psutil.Process(int(pid)).children(recursive=True))]
        parent.send_signal(signal.SIGKILL)

    assert [_ends(member) for member in family] == [True] * len(family)
    shutil.rmtree(directory)


def test_every_database_is_fresh(database_url: str) -> None:
    """A test gets a database that no other test has written to, of each kind."""
    assert database_url.startswith(("sqlite:///", "postgresql://", "mysql://"))
