"""The driver for SQLite and MariaDB: compiled statements on DB-API connections from an SQLAlchemy pool."""

import contextlib
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from lifecycle import urls
from lifecycle.drivers.stepping import ATTEMPTS, Aborted, Stepper, call_sync_hook, is_read, run
from lifecycle.errors import LimitExceeded, SchemaOutdated, SearchTimeout, StorageUnavailable
from lifecycle.operations.requests import CallHook, DuplicateKey, Pause
from lifecycle.operations.typing import Steps, T
from lifecycle.recipes import book
from lifecycle.recipes.lists import TimeLimit
from lifecycle.recipes.statement import Many
from lifecycle.settings import DatabaseSettings

_UPGRADE = "the database has no tables of this release: run `lifecycle db upgrade` (or call manager.setup())"


class DbapiDriver(Stepper):
    """Runs each request in a transaction of its own; what differs between the two databases is in the subclasses."""

    dialect: str
    failures: tuple[type[Exception], ...]

    def __init__(self, settings: DatabaseSettings, engine: sa.Engine) -> None:
        super().__init__()
        self._settings = settings
        self.engine = engine

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    def run(self, operation: Steps[T]) -> T:
        """Run one operation to its end."""
        self.check_process()
        return run(operation, self._meet)

    def _meet(self, request: Any) -> Any:
        if isinstance(request, CallHook):
            return self.call_hook(request)
        if isinstance(request, Pause):
            time.sleep(request.seconds)
            return None
        for attempt in range(ATTEMPTS):
            try:
                return self._transaction(request)
            except Aborted as error:
                if attempt == ATTEMPTS - 1:
                    raise StorageUnavailable(str(error)) from error.__cause__
                time.sleep(0.005 * 2**attempt)
        raise AssertionError("unreachable")

    def call_hook(self, request: CallHook) -> Any:
        """Call a user's function."""
        return call_sync_hook(request)

    def _transaction(self, request: Any) -> Any:
        recipe = book.PORTABLE[type(request)](request)
        committing = limited = False
        with self._connection(request) as connection:
            cursor = connection.cursor()
            try:
                self._begin(cursor, request)
                step = next(recipe)
                try:
                    while True:
                        if isinstance(step, TimeLimit):
                            limited = True
                            self._limit(connection, cursor)
                            answer: Any = None
                        else:
                            answer = self._step(cursor, step)
                        step = recipe.send(answer)
                except StopIteration as done:
                    committing = True
                    cursor.execute("COMMIT")
                    committing = False
                    return done.value
            except BaseException as error:
                self._roll_back(connection, cursor)
                if isinstance(error, self.failures):
                    raise self._translate(error, committing=committing, limited=limited) from error
                raise
            finally:
                recipe.close()
                if limited:
                    self._unlimit(connection, cursor)
                with contextlib.suppress(*self.failures):
                    cursor.close()

    def _step(self, cursor: Any, step: Any) -> Any:
        if isinstance(step, Many):
            compiled = step.statement.on(self.dialect)
            cursor.executemany(compiled.sql, [compiled.bind(values) for values in step.values])
            return None
        statement, values = step
        compiled = statement.on(self.dialect)
        cursor.execute(compiled.sql, compiled.bind(values))
        return compiled.read(cursor.fetchall()) if compiled.returns_rows else cursor.rowcount

    def _connection(self, request: Any) -> contextlib.AbstractContextManager[Any]:
        raise NotImplementedError

    def _begin(self, cursor: Any, request: Any) -> None:
        raise NotImplementedError

    def _limit(self, connection: Any, cursor: Any) -> None:
        raise NotImplementedError

    def _unlimit(self, connection: Any, cursor: Any) -> None:
        raise NotImplementedError

    def _roll_back(self, connection: Any, cursor: Any) -> None:
        raise NotImplementedError

    def _translate(self, error: Exception, *, committing: bool, limited: bool) -> Exception:
        raise NotImplementedError


class SqliteDriver(DbapiDriver):
    """SQLite: one writer at a time in this process, so that threads queue here and not in its busy handler."""

    dialect = "sqlite"
    failures = (sqlite3.Error,)

    def __init__(self, settings: DatabaseSettings) -> None:
        self._memory = urls.is_memory(settings.url)
        pool: dict[str, Any] = {"poolclass": sa.pool.StaticPool} if self._memory else {
            "poolclass": sa.pool.QueuePool, "pool_size": settings.pool_size, "max_overflow": 0,
        }  # fmt: skip
        engine = sa.create_engine(
            urls.engine_url(settings.url),
            connect_args={"check_same_thread": False, "isolation_level": None, "timeout": settings.statement_timeout},
            pool_reset_on_return=None,
            **pool,
        )
        sa.event.listen(engine, "connect", _set_up_sqlite)
        super().__init__(settings, engine)
        self._writing = threading.RLock()

    @contextlib.contextmanager
    def _connection(self, request: Any) -> Iterator[Any]:
        guard: Any = self._writing if self._memory or not is_read(request) else contextlib.nullcontext()
        with guard:
            try:
                fairy = self.engine.raw_connection()
            except (sqlite3.Error, sa.exc.SQLAlchemyError) as error:
                raise StorageUnavailable(f"SQLite: {error}") from error
            try:
                yield fairy.driver_connection
            finally:
                fairy.close()

    def _begin(self, cursor: Any, request: Any) -> None:
        cursor.execute("BEGIN" if is_read(request) else "BEGIN IMMEDIATE")

    def _limit(self, connection: Any, cursor: Any) -> None:
        del cursor
        end = time.monotonic() + self._settings.search_timeout
        connection.set_progress_handler(lambda: time.monotonic() > end, 10_000)

    def _unlimit(self, connection: Any, cursor: Any) -> None:
        del cursor
        connection.set_progress_handler(None, 0)

    def _roll_back(self, connection: Any, cursor: Any) -> None:
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                cursor.execute("ROLLBACK")

    def _translate(self, error: Exception, *, committing: bool, limited: bool) -> Exception:
        del committing  # a commit of SQLite's that fails has not happened
        text = str(error)
        if isinstance(error, sqlite3.IntegrityError) and "UNIQUE" in text:
            return DuplicateKey(text)
        if isinstance(error, sqlite3.OperationalError) and text.startswith(("no such table", "no such column")):
            return SchemaOutdated(_UPGRADE)
        if limited and text == "interrupted":
            return SearchTimeout("the search took longer than database.search_timeout: narrow the filters")
        return StorageUnavailable(f"SQLite: {text}")


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # FULL syncs the log at each commit: what a call acknowledged survives a power cut too.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}").close()


# MariaDB's error numbers.
_DUPLICATE = 1062
_LOCKS = {1205, 1213}
_MISSING = {1054, 1146}
_STATEMENT_TIME = 1969


class MariadbDriver(DbapiDriver):
    """MariaDB through PyMySQL."""

    dialect = "mysql"

    def __init__(self, settings: DatabaseSettings) -> None:
        import pymysql

        self.failures = (pymysql.err.Error,)
        self._errors = pymysql.err
        engine = sa.create_engine(
            urls.engine_url(settings.url),
            pool_size=settings.pool_size,
            max_overflow=0,
            pool_timeout=settings.connect_timeout,
            pool_pre_ping=True,
            pool_reset_on_return=None,
            connect_args={"connect_timeout": max(1, int(settings.connect_timeout)), "autocommit": True},
        )
        sa.event.listen(engine, "do_connect", self._connect)
        sa.event.listen(engine, "connect", self._set_up)
        super().__init__(settings, engine)
        self._largest = 16 * 1024 * 1024

    def _connect(self, _dialect: object, _record: object, _arguments: object, options: dict[str, Any]) -> Any:
        """Connect to a unix socket ourselves: where that fails, PyMySQL leaves its own socket open."""
        import pymysql

        path = options.get("unix_socket")
        if path is None:
            return None
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.settimeout(options["connect_timeout"])
            link.connect(path)
            link.settimeout(None)
            connection = pymysql.connect(**options, defer_connect=True)
            connection.connect(link)
        except OSError as error:
            link.close()
            raise pymysql.err.OperationalError(2003, f"cannot connect to {path}: {error}") from error
        except BaseException:
            link.close()
            raise
        return connection

    def _set_up(self, connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute(
                "SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION',"
                " innodb_lock_wait_timeout = %s, max_statement_time = %s",
                (max(1, int(self._settings.statement_timeout)), float(self._settings.statement_timeout)),
            )
            cursor.execute("SELECT @@max_allowed_packet")
            (self._largest,) = cursor.fetchone()

    @contextlib.contextmanager
    def _connection(self, request: Any) -> Iterator[Any]:
        del request
        try:
            fairy = self.engine.raw_connection()
        except (self._errors.Error, sa.exc.SQLAlchemyError) as error:
            raise StorageUnavailable(f"MariaDB: {error}") from error
        connection: Any = fairy.driver_connection
        try:
            yield connection
        except BaseException:
            if not connection.open:
                fairy.invalidate()
            raise
        finally:
            fairy.close()

    def _step(self, cursor: Any, step: Any) -> Any:
        sets = step.values if isinstance(step, Many) else (step[1],)
        for values in sets:
            size = sum(len(value) for value in values.values() if isinstance(value, str))
            if size > self._largest // 4:
                exact = sum(len(value.encode()) for value in values.values() if isinstance(value, str))
                if exact + 65536 > self._largest:
                    raise LimitExceeded(
                        "the statement", exact, self._largest - 65536, "bytes", "MariaDB's max_allowed_packet"
                    )
        return super()._step(cursor, step)

    def _begin(self, cursor: Any, request: Any) -> None:
        del request
        cursor.execute("BEGIN")

    def _limit(self, connection: Any, cursor: Any) -> None:
        del connection
        cursor.execute("SET SESSION max_statement_time = %s", (float(self._settings.search_timeout),))

    def _unlimit(self, connection: Any, cursor: Any) -> None:
        if connection.open:
            with contextlib.suppress(self._errors.Error):
                cursor.execute("SET SESSION max_statement_time = %s", (float(self._settings.statement_timeout),))

    def _roll_back(self, connection: Any, cursor: Any) -> None:
        if connection.open:
            try:
                cursor.execute("ROLLBACK")
            except self._errors.Error:
                with contextlib.suppress(Exception):
                    connection.close()

    def _translate(self, error: Exception, *, committing: bool, limited: bool) -> Exception:
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        if code == _DUPLICATE:
            return DuplicateKey(str(error))
        if code in _LOCKS:
            return Aborted(str(error))
        if code in _MISSING:
            return SchemaOutdated(_UPGRADE)
        if code == _STATEMENT_TIME:
            if limited:
                return SearchTimeout("the search took longer than database.search_timeout: narrow the filters")
            return StorageUnavailable("the statement took longer than database.statement_timeout")
        return StorageUnavailable(f"MariaDB: {error}", outcome_unknown=committing)
