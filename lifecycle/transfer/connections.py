"""Connections of a transfer's own: one transaction for all of it, rows streamed as they are read."""

import contextlib
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import sqlalchemy as sa

from lifecycle import migrate
from lifecycle.errors import Conflict, SchemaOutdated, StorageUnavailable
from lifecycle.log import mask_passwords
from lifecycle.recipes.citus_catalog import layout
from lifecycle.recipes.statement import Statement
from lifecycle.transfer.rows import Row

# MariaDB's error number of a broken unique constraint.
_DUPLICATE: Final = 1062
_WAIT_SECONDS: Final = 3600
_CACHE_KIB: Final = 32 * 1024


class Connection(ABC):
    """A database's own connection in one transaction. `kind` is the dialect's name in `Statement.on`."""

    kind: str
    # Whether sessions are on several nodes, of which no statement can lock more than one.
    spread = False

    def __init__(self, opened: sa.Connection) -> None:
        self.opened = opened
        self.raw: Any = opened.connection.driver_connection

    @abstractmethod
    def begin(self, *, writing: bool) -> None:
        """Begin the transaction: one that sees one snapshot, or one that writes."""

    @abstractmethod
    def rows(self, statement: Statement, values: Row) -> Iterator[Row]:
        """The rows of a statement, as they are read: no other one may be run in between."""

    def all(self, statement: Statement, values: Row | None = None) -> list[Row]:
        """All rows of a statement."""
        compiled = statement.on(self.kind)
        with contextlib.closing(self.raw.cursor()) as cursor:
            cursor.execute(compiled.sql, compiled.bind(values or {}))
            return compiled.read(cursor.fetchall())

    def many(self, statement: Statement, values: Sequence[Row]) -> None:
        """Run a statement for each set of values."""
        compiled = statement.on(self.kind)
        with contextlib.closing(self.raw.cursor()) as cursor:
            cursor.executemany(compiled.sql, [compiled.bind(each) for each in values])

    def change(self, statement: Statement, values: Row) -> int:
        """Run a statement that gives no rows: the number of rows it changed."""
        compiled = statement.on(self.kind)
        with contextlib.closing(self.raw.cursor()) as cursor:
            cursor.execute(compiled.sql, compiled.bind(values))
            return int(cursor.rowcount)

    def plain(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """The first row of a statement written as text, or None."""
        with contextlib.closing(self.raw.cursor()) as cursor:
            cursor.execute(sql, values)
            return cursor.fetchone() if cursor.description else None

    def commit(self) -> None:
        """Commit."""
        try:
            self.plain("COMMIT")
        except Exception as error:
            raise StorageUnavailable(_first_line(error), outcome_unknown=True) from error

    def roll_back(self) -> None:
        """Take back what is not committed."""
        self.plain("ROLLBACK")


class _Sqlite(Connection):
    kind = "sqlite"

    def begin(self, *, writing: bool) -> None:
        # As a manager sets it: without the log, whoever writes waits until all is read.
        with contextlib.suppress(sqlite3.OperationalError):
            self.plain("PRAGMA journal_mode=WAL")
        self.plain("PRAGMA synchronous=FULL")
        self.plain(f"PRAGMA cache_size=-{_CACHE_KIB}")
        self._transaction = self.opened.begin()
        if not self.raw.in_transaction:
            self.plain("BEGIN IMMEDIATE" if writing else "BEGIN")
        self.plain("SELECT 1 FROM sessions LIMIT 1")  # from here on it sees one snapshot

    def commit(self) -> None:
        self._transaction.commit()

    def roll_back(self) -> None:
        if self._transaction.is_active:
            self._transaction.rollback()

    def rows(self, statement: Statement, values: Row) -> Iterator[Row]:
        compiled = statement.on(self.kind)
        with contextlib.closing(self.raw.execute(compiled.sql, compiled.bind(values))) as cursor:
            for row in cursor:
                yield compiled.read((row,))[0]


class _Mariadb(Connection):
    kind = "mysql"

    def begin(self, *, writing: bool) -> None:
        level = "READ COMMITTED" if writing else "REPEATABLE READ"
        self.plain(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")
        self.plain(
            "SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION',"
            " max_statement_time = 0, net_write_timeout = %s, net_read_timeout = %s",
            (_WAIT_SECONDS, _WAIT_SECONDS),
        )
        self.plain("START TRANSACTION" if writing else "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")

    def rows(self, statement: Statement, values: Row) -> Iterator[Row]:
        from pymysql.cursors import SSCursor

        compiled = statement.on(self.kind)
        with contextlib.closing(self.raw.cursor(SSCursor)) as cursor:
            cursor.execute(compiled.sql, compiled.bind(values))
            for row in cursor:
                yield compiled.read((row,))[0]


class _Postgresql(Connection):
    kind = "postgresql"

    def begin(self, *, writing: bool) -> None:
        self.plain("SELECT set_config('timezone', 'UTC', false), set_config('statement_timeout', '0', false)")
        self.spread = layout(self.plain).is_distributed
        self.plain("BEGIN" if writing else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if self.spread:
            # One connection to each node, and so one snapshot of it.
            self.plain("SET LOCAL citus.max_adaptive_executor_pool_size = 1")

    def rows(self, statement: Statement, values: Row) -> Iterator[Row]:
        compiled = statement.on(self.kind)
        types = postgres_types(statement.expression.exported_columns)  # type: ignore[attr-defined]
        with (
            contextlib.closing(self.raw.cursor()) as cursor,
            cursor.copy(f"COPY ({compiled.sql}) TO STDOUT (FORMAT BINARY)", compiled.bind(values)) as copy,
        ):
            copy.set_types(types)
            for row in copy.rows():
                yield compiled.read((row,))[0]


_POSTGRES_TYPES: Final = {
    "Text": "text",
    "Base64": "text",
    "BigInteger": "int8",
    "Integer": "int4",
    "Boolean": "bool",
    "Timestamp": "timestamptz",
}


def postgres_types(columns: Iterable[Any], *, stored: bool = False) -> list[str]:
    """What PostgreSQL calls the types of columns, for COPY in binary format: as they are read, or as they are `stored`."""
    types = _POSTGRES_TYPES | {"Base64": "bytea"} if stored else _POSTGRES_TYPES
    return [types[type(column.type).__name__] for column in columns]


_KINDS: Final = {kind.kind: kind for kind in (_Sqlite, _Mariadb, _Postgresql)}


@contextlib.contextmanager
def connected(url: str, *, writing: bool) -> Iterator[Connection]:
    """A connection to a database with the schema of this release, in a transaction that is rolled back unless committed.

    Raises `SchemaOutdated`, `StorageUnavailable`, and `Conflict` where somebody else stored a row of the same key.
    """
    migrate.check(url)
    with migrate.connected(url, autocommit=True) as opened, _driver_errors():
        name = "mysql" if opened.dialect.name == "mariadb" else opened.dialect.name
        connection = _KINDS[name](opened)
        connection.begin(writing=writing)
        try:
            yield connection
        finally:
            with contextlib.suppress(Exception):  # what is closed is rolled back too
                connection.roll_back()


@contextlib.contextmanager
def _driver_errors() -> Iterator[None]:
    """Turn what a driver raises into errors of ours."""
    try:
        yield
    except Exception as error:
        module = type(error).__module__.partition(".")[0]
        if module not in {"sqlite3", "psycopg", "pymysql"}:
            raise
        if _is_duplicate(error):
            problem = "somebody else stored a row with the key of one of these meanwhile, or it is in the file twice"
            raise Conflict(f"{problem}; nothing was written: {_first_line(error)}") from error
        if isinstance(error, sqlite3.OperationalError) and "no such" in str(error):
            raise SchemaOutdated(_first_line(error)) from error
        raise StorageUnavailable(_first_line(error)) from error


def _is_duplicate(error: Exception) -> bool:
    state = getattr(error, "sqlstate", None) == "23505"
    sqlite = isinstance(error, sqlite3.IntegrityError) and "UNIQUE" in str(error)
    return state or sqlite or (type(error).__module__.startswith("pymysql") and error.args[:1] == (_DUPLICATE,))


def _first_line(error: Exception) -> str:
    lines = str(error.args[1] if len(error.args) > 1 else error).strip().splitlines()
    return mask_passwords(lines[0]) if lines else type(error).__name__
