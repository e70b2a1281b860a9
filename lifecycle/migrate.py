"""The schema of a database: to bring it to this release, to take it back, to say where it is.

`upgrade` may be called by any number of processes at once: one migrates, the others wait and find it done.
"""

import contextlib
import io
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from lifecycle.errors import InvalidArgument, SchemaOutdated, StorageUnavailable
from lifecycle.log import mask_passwords
from lifecycle.urls import dialect_name, engine_url, is_memory, jsonl_directory

VERSION_TABLE: Final = "lifecycle_schema"
TITLE_INDEX: Final = "ix_sessions_title_trgm"
TITLE_TABLE: Final = "sessions_title_fts"
CONTENT_INDEX: Final = "ix_session_messages_content_trgm"
CONTENT_TABLE: Final = "session_messages_fts"

COMMAND: Final = "lifecycle db upgrade"

_CONNECT_SECONDS: Final = 10
_SQLITE_WAIT_SECONDS: Final = 30
_LOCK_WAIT_SECONDS: Final = 600.0
_LOCK_POLL_SECONDS: Final = 0.05
# Any number, as long as it stays the same: PostgreSQL's advisory locks are told apart by number, per database.
_LOCK_KEY: Final = 0x4C696665_4D696772

# Alembic keeps what it works on in module globals.
_one_at_a_time = threading.RLock()


def compares(_object: Any, name: str | None, kind: str, reflected: bool, _compare_to: Any) -> bool:
    """Say whether Alembic should compare an object: the search indexes are not part of the metadata."""
    if not reflected or name is None:
        return True
    if kind == "index":
        return name not in {TITLE_INDEX, CONTENT_INDEX}
    return kind != "table" or not name.startswith((TITLE_TABLE, CONTENT_TABLE))


COMPARISON: Final[dict[str, Any]] = {
    "compare_type": True,
    "compare_server_default": True,
    "include_object": compares,
}


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database to a revision, by default to that of this release; nothing is done where it is there already.

    All or nothing on SQLite and PostgreSQL; on MariaDB, whose DDL commits by itself, it can be repeated when it was
    interrupted. Raises SchemaOutdated when the database is newer than this release, StorageUnavailable when it cannot
    be reached, and InvalidArgument for a revision that is not known.
    """
    _refuse_memory(url)
    if revision in {"head", head()} and current(url) == head():
        return
    with _locked(url, create=True) as connection:
        _run(connection, command.upgrade, revision)


def upgrade_connection(connection: sa.Connection, revision: str = "head") -> None:
    """Bring the database of an open connection to a revision, by default this release's, as one in memory needs it.

    In the transaction of the caller if there is one, else in one of its own that is committed. The caller sees to it
    that nobody else does it at the same time.
    """
    with _storage_errors():
        if connection.in_transaction():
            _begin_immediate(connection)
            _run(connection, command.upgrade, revision)
        else:
            with connection.begin():
                _begin_immediate(connection)
                _run(connection, command.upgrade, revision)


def downgrade(url: str, revision: str) -> None:
    """Take the database back to an earlier revision, or to `base`: without any table, and without the data."""
    _refuse_memory(url)
    with _locked(url) as connection:
        _run(connection, command.downgrade, revision)


def check(url: str) -> None:
    """Raise SchemaOutdated unless the database has the schema of this release; says what to do about it."""
    compare(current(url))


def sql(url: str, revision: str = "head") -> str:
    """Return the SQL that brings an empty database of this kind to a revision; nothing is connected to."""
    if jsonl_directory(url) is not None:
        raise InvalidArgument(
            "url: a directory of JSONL files has no SQL to print; its format is in docs/jsonl-store.md"
        )
    parsed, text = engine_url(url), io.StringIO()
    config = _config()
    config.output_buffer = text
    config.attributes["url"] = parsed
    with _one_at_a_time, _revision_errors():
        command.upgrade(config, revision, sql=True)
    return text.getvalue()


def current(url: str) -> str | None:
    """Return the revision that the database is at; None when it has none yet."""
    directory = jsonl_directory(url)
    if directory is not None:
        found: str | None = _stores().revision_of(directory)
        return found
    parsed = engine_url(url)
    if is_memory(url):
        return None
    if parsed.get_backend_name() == "sqlite" and "uri" not in parsed.query and not Path(str(parsed.database)).exists():
        return None  # connecting would create the file
    with connected(url) as connection:
        return _current(connection)


@cache
def head() -> str:
    """Return the revision of this release."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise RuntimeError("no revision in the migrations folder")
    return revision


@contextlib.contextmanager
def connected(url: str, *, autocommit: bool = False, create: bool = False) -> Iterator[sa.Connection]:
    """Yield a connection of its own that is gone afterwards; on SQLite a transaction begins by taking the write lock.

    On a directory of JSONL files it is the one that all of this process share, for nobody else meanwhile; `create`
    makes a directory that is not there. What the driver raises becomes StorageUnavailable.
    """
    directory = jsonl_directory(url)
    if directory is not None:
        with _storage_errors(), _stores().borrowed(directory) as store, store.connected(create=create) as connection:
            yield connection
        return
    parsed = engine_url(url)
    kind = dialect_name(url)
    timeout = {"timeout": _SQLITE_WAIT_SECONDS} if kind == "sqlite" else {"connect_timeout": _CONNECT_SECONDS}
    given = {name for name in timeout if name in parsed.query}
    arguments = {name: value for name, value in timeout.items() if name not in given}
    with _storage_errors():
        engine = sa.create_engine(parsed, poolclass=sa.NullPool, connect_args=arguments)
        if kind == "sqlite":
            # pysqlite begins a transaction before DML only, and lets DDL run outside of it.
            sa.event.listen(engine, "connect", _leave_transactions_alone)
        try:
            with engine.connect() as connection:
                if autocommit and kind != "sqlite":
                    connection.execution_options(isolation_level="AUTOCOMMIT")
                yield connection
        finally:
            engine.dispose()


@contextlib.contextmanager
def transaction(connection: sa.Connection) -> Iterator[None]:
    """Run a block in one transaction, DDL included; on SQLite it holds the write lock from its beginning."""
    with connection.begin():
        _begin_immediate(connection)
        yield


def wait_for_lock(acquire: Callable[[], bool]) -> None:
    """Try until the lock is had. Raises StorageUnavailable after ten minutes.

    A statement that waits in the server would hold a snapshot, which CREATE INDEX CONCURRENTLY waits for.
    """
    deadline = time.monotonic() + _LOCK_WAIT_SECONDS
    while not acquire():
        if time.monotonic() > deadline:
            raise StorageUnavailable(f"another process is changing the schema since {_LOCK_WAIT_SECONDS:.0f} seconds")
        time.sleep(_LOCK_POLL_SECONDS)


@contextlib.contextmanager
def _locked(url: str, *, create: bool = False) -> Iterator[sa.Connection]:
    """Yield a connection in a transaction, the only one that migrates this database; committed at the end."""
    kind = dialect_name(url)
    with connected(url, create=create) as connection:
        if kind == "mariadb":
            _lock_mariadb(connection)  # released with the connection
        with transaction(connection):
            if kind == "postgresql":
                statement = sa.select(sa.func.pg_try_advisory_xact_lock(_LOCK_KEY))
                wait_for_lock(lambda: bool(connection.scalar(statement)))
            yield connection


def _stores() -> Any:
    from lifecycle.drivers import jsonl_stores  # it migrates what it reads, with this module

    return jsonl_stores


def _lock_mariadb(connection: sa.Connection) -> None:
    # The names of these locks are the whole server's. A lock outlives the commit that every DDL statement is.
    name = sa.func.concat("lifecycle.migrate.", sa.func.md5(sa.func.database()))
    wait_for_lock(lambda: connection.scalar(sa.select(sa.func.get_lock(name, 1))) == 1)
    connection.rollback()


def _leave_transactions_alone(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None


def _begin_immediate(connection: sa.Connection) -> None:
    if connection.dialect.name != "sqlite":
        return
    driver = connection.connection.dbapi_connection
    if not getattr(driver, "in_transaction", False):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _run(connection: sa.Connection, migrate: Callable[[Config, str], None], revision: str) -> None:
    """Run Alembic on the connection, in the transaction that it is in."""
    at = _current(connection)
    if migrate is command.upgrade and at == head() and revision in {"head", at}:
        return
    require_known(at)
    config = _config()
    config.attributes["connection"] = connection
    with _one_at_a_time, _revision_errors():
        migrate(config, revision)


def _current(connection: sa.Connection) -> str | None:
    options = {"version_table": VERSION_TABLE}
    heads = MigrationContext.configure(connection, opts=options).get_current_heads()
    return heads[0] if heads else None


def compare(at: str | None) -> None:
    """Raise SchemaOutdated unless a revision is that of this release; says what to do about it."""
    if at == head():
        return
    if at is None:
        raise SchemaOutdated(f"the database has no Lifecycle tables yet; run: {COMMAND}")
    if _known(at):
        raise SchemaOutdated(f"the database is at revision {at}, this release needs {head()}; run: {COMMAND}")
    raise SchemaOutdated(
        f"the database is at revision {at}, which this release does not know (its own is {head()}): a newer release has"
        " migrated it; install that release of session-lifecycle"
    )


def require_known(at: str | None) -> None:
    """Raise SchemaOutdated for a revision that only a newer release knows; None is that of no tables."""
    if at is not None and not _known(at):
        compare(at)


def _known(revision: str) -> bool:
    return any(script.revision == revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def _config() -> Config:
    config = Config(stdout=io.StringIO())
    # In the repository as in an installed wheel the two packages stand side by side. The import system would find
    # the application's own `migrations`, if it has one.
    location = Path(__file__).resolve().parent.parent / "migrations"
    config.set_main_option("script_location", str(location).replace("%", "%%"))
    return config


def _refuse_memory(url: str) -> None:
    if is_memory(url):
        raise InvalidArgument("url: a database in memory is gone with its connection; use migrate.upgrade_connection")


@contextlib.contextmanager
def _revision_errors() -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        raise InvalidArgument(f"revision: {error}") from error


@contextlib.contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise StorageUnavailable(mask_passwords(str(error.orig).strip() or "the database failed")) from error.orig
    except SQLAlchemyError as error:
        raise StorageUnavailable(mask_passwords(str(error))) from error
    except ModuleNotFoundError as error:
        extra = "mysql" if error.name == "pymysql" else "postgres"
        hint = f"pip install 'session-lifecycle[{extra}]'"
        raise StorageUnavailable(f"the database's driver {error.name} is not installed; run: {hint}") from error
