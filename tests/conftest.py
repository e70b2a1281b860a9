"""The databases that tests run on.

`database_url` gives a test a fresh, empty database of every kind in turn, `migrated_url` one with the schema in place,
or a directory of JSONL files, which is one process's; `shared_url` is for tests in which other processes take part.
Servers start when the first test of a worker process asks for them. A server that this machine does not have skips the
tests that need it, or fails them when LIFECYCLE_TESTS_REQUIRE_SERVERS=1 says that it should be there.

With LIFECYCLE_TEST_CITUS_URL, the URL of an empty database on a coordinator of Citus, that is one more of them. The
tests of all processes take turns on it. `stand-in` instead of a URL is a PostgreSQL that takes itself for one.
"""

import asyncio
import contextlib
import os
import sqlite3
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import citus
from tests.servers import MariaDBServer, PostgresServer, ServerUnavailable, find_mariadb, find_postgres
from tests.valkey import ValkeyServer, find_valkey

DATABASES = ("sqlite", "postgresql", "postgresql15", "mariadb")
CITUS = ("citus",) if os.environ.get(citus.VARIABLE) else ()
STORES = (*DATABASES, *CITUS, "jsonl")

# What is not tried on the oldest PostgreSQL too, as it sends nothing there that it does not send to the newest: the suite of
# behaviour, locks, leases, plans, transfers and migrations are. With LIFECYCLE_TESTS_EVERYWHERE=1 everything is.
NOT_ON_OLDEST = frozenset(
    {
        "test_adapters_alike", "test_adk", "test_archive", "test_directories", "test_durable_agent", "test_framework_examples",
        "test_http_api", "test_http_events", "test_http_idempotency", "test_keys", "test_langgraph",
        "test_langgraph_conformance", "test_langgraph_example", "test_langgraph_graphs", "test_many", "test_many_failures",
        "test_mcp", "test_metrics",
        "test_migrating", "test_openai_agents", "test_oversight", "test_paused", "test_row_security", "test_runner", "test_samples",
        "test_together",
    }
)  # fmt: skip

# These servers are never meant to survive the machine, only their own crashes, and fsync does nothing for that.
# Commits are as synchronous as ever.
POSTGRES_SETTINGS = {"fsync": "off", "full_page_writes": "off"}
MARIADB_SETTINGS = {"innodb_flush_log_at_trx_commit": "2", "innodb_flush_method": "nosync"}


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The newest PostgreSQL, shared by the tests of a worker process; a test that hurts a server starts its own."""
    with PostgresServer(_found(lambda: find_postgres(18)), settings=POSTGRES_SETTINGS) as server:
        yield server


@pytest.fixture(scope="session")
def postgres15_server() -> Iterator[PostgresServer]:
    """The oldest supported PostgreSQL, shared by the tests of a worker process."""
    with PostgresServer(_found(lambda: find_postgres(15)), settings=POSTGRES_SETTINGS) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDBServer]:
    """MariaDB, shared by the tests of a worker process."""
    with MariaDBServer(_found(find_mariadb), settings=MARIADB_SETTINGS) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    """A Valkey server, shared by the tests of a worker process; a test that hurts one starts its own."""
    with ValkeyServer(_found(find_valkey)) as server:
        yield server


@pytest.fixture
def own_valkey() -> Iterator[ValkeyServer]:
    """A Valkey server that a test may hurt."""
    with ValkeyServer(_found(find_valkey)) as server:
        yield server


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'lifecycle.db'}"


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty database on the newest PostgreSQL."""
    with _postgres_database(postgres_server) as url:
        yield url


@pytest.fixture
def postgres15_url(postgres15_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty database on the oldest supported PostgreSQL."""
    with _postgres_database(postgres15_server) as url:
        yield url


@pytest.fixture
def mariadb_url(mariadb_server: MariaDBServer) -> Iterator[str]:
    """The URL of an empty database on MariaDB."""
    name = _fresh_name()
    yield mariadb_server.create_database(name)
    mariadb_server.drop_database(name)


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, of each kind in turn."""
    fixtures = {
        "sqlite": "sqlite_url",
        "postgresql": "postgres_url",
        "postgresql15": "postgres15_url",
        "mariadb": "mariadb_url",
    }
    return str(request.getfixturevalue(fixtures[request.param]))


@pytest.fixture
def migrated_sqlite_url(migrated_sqlite_file: Path, sqlite_url: str) -> str:
    """The URL of a SQLite database with the schema in place."""
    with (
        contextlib.closing(sqlite3.connect(migrated_sqlite_file)) as migrated,
        contextlib.closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as copy,
    ):
        migrated.backup(copy)
    return sqlite_url


@pytest.fixture
def migrated_postgres_url(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """The URL of a database with the schema in place on the newest PostgreSQL."""
    with _postgres_database(postgres_server, template=postgres_template) as url:
        yield url


@pytest.fixture
def migrated_postgres15_url(postgres15_server: PostgresServer, postgres15_template: str) -> Iterator[str]:
    """The URL of a database with the schema in place on the oldest supported PostgreSQL."""
    with _postgres_database(postgres15_server, template=postgres15_template) as url:
        yield url


@pytest.fixture
def migrated_mariadb_url(mariadb_server: MariaDBServer, mariadb_migrated: str) -> str:
    """The URL of a database with the schema in place on MariaDB: one per worker process, emptied for every test."""
    mariadb_server.empty_database(mariadb_migrated, keep="lifecycle_schema")
    return mariadb_server.url(mariadb_migrated)


@pytest.fixture
def stand_in_url(postgres_server: PostgresServer, citus_template: str) -> Iterator[str]:
    """The URL of a database with the schema in place that takes itself for a coordinator's, its tables for distributed.

    What Citus would refuse is refused there too.
    """
    with _postgres_database(postgres_server, template=citus_template) as url, citus.watched(_refuse):
        yield url


@pytest.fixture
def migrated_citus_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database with the schema in place, distributed: the cluster's that is named, or a stand-in's."""
    if os.environ[citus.VARIABLE] == citus.STAND_IN:
        yield str(request.getfixturevalue("stand_in_url"))
        return
    with citus.emptied(os.environ[citus.VARIABLE]) as url:
        yield url


@pytest.fixture
def jsonl_url(tmp_path: Path) -> str:
    """The URL of a directory of JSONL files that does not exist yet."""
    return f"jsonl:///{tmp_path / 'store'}"


@pytest.fixture
def migrated_jsonl_url(jsonl_url: str) -> str:
    """The URL of a directory of JSONL files with the schema in place."""
    _migrate(jsonl_url)
    return jsonl_url


@pytest.fixture(params=STORES)
def migrated_url(request: pytest.FixtureRequest) -> str:
    """The URL of a store with the schema in place and no rows, of each kind in turn."""
    return _migrated_url(request)


@pytest.fixture(params=(*DATABASES, *CITUS))
def shared_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with the schema in place that any number of processes may use, of each kind in turn."""
    return _migrated_url(request)


@pytest.fixture(params=["sync", "async"])
def manager(request: pytest.FixtureRequest, migrated_url: str) -> Iterator[Any]:
    """A manager of either kind on an empty database."""
    from lifecycle import AsyncSessionManager, SessionManager
    from tests.managers import Blocking

    if request.param == "sync":
        with SessionManager.open(migrated_url) as opened:
            yield opened
        return
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    blocking = Blocking(AsyncSessionManager.open(migrated_url), loop)
    yield blocking
    blocking.close()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="session")
def migrated_sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the schema in place, to be copied."""
    file = tmp_path_factory.mktemp("migrated") / "lifecycle.db"
    _migrate(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """The name of a database with the schema in place on the newest PostgreSQL, to be copied."""
    return _postgres_template(postgres_server)


@pytest.fixture(scope="session")
def postgres15_template(postgres15_server: PostgresServer) -> str:
    """The name of a database with the schema in place on the oldest supported PostgreSQL, to be copied."""
    return _postgres_template(postgres15_server)


@pytest.fixture(scope="session")
def citus_template(postgres_server: PostgresServer) -> str:
    """The name of a database that takes itself for a coordinator's with the schema distributed, to be copied."""
    url = postgres_server.create_database("distributed")
    _migrate(url)
    citus.pretend(url)
    distribute(url)
    return "distributed"


@pytest.fixture(scope="session")
def mariadb_migrated(mariadb_server: MariaDBServer) -> str:
    """The name of a database with the schema in place on MariaDB, to be emptied for every test."""
    name = "migrated"
    _migrate(mariadb_server.create_database(name))
    return name


def _migrated_url(request: pytest.FixtureRequest) -> str:
    fixtures = {
        "sqlite": "migrated_sqlite_url",
        "postgresql": "migrated_postgres_url",
        "postgresql15": "migrated_postgres15_url",
        "mariadb": "migrated_mariadb_url",
        "citus": "migrated_citus_url",
        "jsonl": "migrated_jsonl_url",
    }
    return str(request.getfixturevalue(fixtures[request.param]))


def _found(find: Callable[[], Path]) -> Path:
    try:
        return find()
    except ServerUnavailable as reason:
        if os.environ.get("LIFECYCLE_TESTS_REQUIRE_SERVERS") == "1":
            pytest.fail(str(reason), pytrace=False)
        pytest.skip(str(reason))


@contextlib.contextmanager
def _postgres_database(server: PostgresServer, template: str | None = None) -> Iterator[str]:
    name = _fresh_name()
    yield server.create_database(name, template=template)
    server.drop_database(name)


def _postgres_template(server: PostgresServer) -> str:
    name = "migrated"
    _migrate(server.create_database(name))
    return name


def _fresh_name() -> str:
    return f"test_{uuid.uuid4().hex}"


def _refuse(_request: str, statement: Any) -> None:
    from tests.statements import classify, written

    if statement not in _classes:
        _classes[statement] = classify(*written(statement))


_classes: dict[Any, str] = {}

# Clients of HTTP read the certificates of all authorities when they are made, and ours speak to loopback only.
os.environ["SSL_CERT_DIR"] = tempfile.gettempdir()


def distribute(url: str) -> None:
    """Distribute the tables of a database."""
    from lifecycle import distribute as distributing

    distributing.distribute(url)


def _migrate(url: str) -> None:
    from lifecycle import migrate  # tests without a database do without Alembic

    migrate.upgrade(url)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not tried on the oldest PostgreSQL."""
    if os.environ.get("LIFECYCLE_TESTS_EVERYWHERE") == "1":
        return
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        oldest = item.path.stem in NOT_ON_OLDEST and ("postgresql15" in item.name or "postgres15" in item.name)
        (left if oldest else kept).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept
