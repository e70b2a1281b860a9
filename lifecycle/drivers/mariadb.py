"""The driver for MariaDB: PyMySQL connections from an SQLAlchemy pool."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from lifecycle import urls
from lifecycle.drivers.dbapi import UPGRADE, DbapiDriver
from lifecycle.drivers.stepping import IDLE, Aborted
from lifecycle.errors import SchemaOutdated, SearchTimeout, StorageUnavailable
from lifecycle.operations.requests import ASSEMBLED, DuplicateKey, ListSessions
from lifecycle.recipes import large
from lifecycle.recipes.portable.base import Recipe
from lifecycle.settings import DatabaseSettings

# MariaDB's error numbers.
_DUPLICATE = 1062
# Whose victim may try again: of locks, and of a table that was changed under a snapshot.
_LOCKS = {1205, 1213, 1412}
_MISSING = {1054, 1146}
_STATEMENT_TIME = 1969
# What several reads say that have to be of one moment.
_AT_ONE_MOMENT = (*ASSEMBLED, ListSessions)


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
            connection: Any = pymysql.connect(**options, defer_connect=True)
            connection._secure = True  # noqa: SLF001 - as PyMySQL says of the sockets that it opens itself
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
                " innodb_lock_wait_timeout = %s, max_statement_time = %s, idle_transaction_timeout = %s",
                (max(1, int(self._settings.statement_timeout)), float(self._settings.statement_timeout), IDLE),
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

    def _recipe(self, request: Any) -> Recipe:
        return large.split(super()._recipe(request), lambda: self._largest)

    def _begin(self, cursor: Any, request: Any) -> None:
        if isinstance(request, _AT_ONE_MOMENT):
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        else:
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

    def _is_over(self, connection: Any) -> bool:
        return not connection.open

    def _undone(self, error: Exception, *, committing: bool) -> Exception:
        problem = self._translate(error, committing=committing, limited=False)
        # A connection that is gone may have gone with the server: to try each write would be to wait for it each time.
        return super()._undone(error, committing=committing) if isinstance(problem, Aborted) else problem

    def _translate(self, error: Exception, *, committing: bool, limited: bool) -> Exception:
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        if code == _DUPLICATE:
            return DuplicateKey(str(error))
        if code in _LOCKS:
            return Aborted(str(error))
        if code in _MISSING:
            return SchemaOutdated(UPGRADE)
        if code == _STATEMENT_TIME:
            if limited:
                return SearchTimeout("the search took longer than database.search_timeout: narrow the filters")
            return StorageUnavailable("the statement took longer than database.statement_timeout")
        return StorageUnavailable(f"MariaDB: {error}", outcome_unknown=committing)
