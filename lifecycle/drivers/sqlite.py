"""The driver for SQLite: one writer at a time in this process, and as many readers as there are threads."""

import abc
import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import sqlalchemy as sa

from lifecycle import urls
from lifecycle.drivers.combining import Group
from lifecycle.drivers.dbapi import UPGRADE, DbapiDriver
from lifecycle.drivers.stepping import is_read
from lifecycle.errors import SchemaOutdated, SearchTimeout, StorageUnavailable
from lifecycle.operations import requests as r
from lifecycle.operations.requests import DuplicateKey
from lifecycle.recipes import book
from lifecycle.settings import DatabaseSettings

UNANSWERED: Final = object()
# Writes with nothing in them that reaches beyond the database.
GROUPED: Final = frozenset({
    r.CreateSession, r.SaveState, r.Move, r.Touch, r.AddMessages, r.AddMissingMessages, r.RemoveMessage,
    r.UpdateSession, r.MakeCheckpoint, r.RestoreCheckpoint, r.AcquireLease, r.RenewLeases, r.ReleaseLease,
    r.RequestApproval, r.ResolveApproval, r.OpenConnection, r.BeatConnection, r.CloseConnection,
    r.ClearMessages, r.Together,
})  # fmt: skip
_SINGLES = book.SINGLES["sqlite"]


class SqliteDialect(DbapiDriver):
    """How statements are run on a connection to SQLite, wherever its database is."""

    dialect = "sqlite"
    failures = (sqlite3.Error,)

    @abc.abstractmethod
    def meet_at_once(self, request: Any) -> Any:
        """The answer to a read by key if it can be had without waiting for anybody, or `UNANSWERED`."""

    @staticmethod
    def _read(connection: sqlite3.Connection, single: Any, request: Any) -> Any:
        # One SELECT sees one snapshot without a transaction around it.
        compiled = single.statement(request).on("sqlite")
        found = connection.execute(compiled.sql, compiled.bind(single.bind(request))).fetchall()
        return single.read(request, compiled.read(found) if found else found)

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
        if not self._is_over(connection):
            with contextlib.suppress(sqlite3.Error):
                cursor.execute("ROLLBACK")

    def _is_over(self, connection: Any) -> bool:
        return not connection.in_transaction

    def _release(self, cursor: Any) -> None:
        cursor.execute("RELEASE one")

    def _translate(self, error: Exception, *, committing: bool, limited: bool) -> Exception:
        del committing  # a commit of SQLite's that fails has not happened
        text = str(error)
        if isinstance(error, sqlite3.IntegrityError) and "UNIQUE" in text:
            return DuplicateKey(text)
        if isinstance(error, sqlite3.OperationalError) and text.startswith(("no such table", "no such column")):
            return SchemaOutdated(UPGRADE)
        if limited and text == "interrupted":
            return SearchTimeout("the search took longer than database.search_timeout: narrow the filters")
        return StorageUnavailable(f"SQLite: {text}")


class SqliteDriver(SqliteDialect):
    """Threads that write queue here and not in SQLite's busy handler, which polls."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._memory = urls.is_memory(settings.url)
        engine = sa.create_engine(
            urls.engine_url(settings.url),
            connect_args={"check_same_thread": False, "isolation_level": None, "timeout": settings.statement_timeout},
            pool_reset_on_return=None,
            # Idle connections are kept here: taking one out of SQLAlchemy's pool costs half as much as a read.
            poolclass=sa.pool.StaticPool if self._memory else sa.pool.NullPool,
        )
        sa.event.listen(engine, "connect", _set_up)
        super().__init__(settings, engine)
        self._writing = threading.RLock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        self._at_once = threading.Lock()
        self._impatient: sqlite3.Connection | None = None
        self._group = Group(self._commit_together, super()._meet)

    def close(self) -> None:
        """Close the connections; one that is in use is closed when it comes back."""
        self._closed = True
        with self._at_once:
            if self._impatient is not None:
                self._impatient.close()
                self._impatient = None
        while self._idle:
            self._idle.pop().close()
        super().close()

    def _meet(self, request: Any) -> Any:
        single = _SINGLES.get(type(request))
        if single is None:
            return self._group.run(request) if self.groups(request) else super()._meet(request)
        if self._memory:
            with self._writing:
                return self._answer(single, request)
        return self._answer(single, request)

    def groups(self, request: Any) -> bool:
        """Whether a request is a write that may share its transaction with others."""
        return type(request) in GROUPED and not self._memory

    def _answer(self, single: Any, request: Any) -> Any:
        connection = self._take()
        try:
            return self._read(connection, single, request)
        except sqlite3.Error as error:
            raise self._translate(error, committing=False, limited=False) from error
        finally:
            self._give(connection)

    def meet_at_once(self, request: Any) -> Any:
        """The answer to a read by key if it can be had without waiting for anybody, or `UNANSWERED`.

        It takes microseconds, where handing it to another thread and back takes a hundred.
        """
        single = _SINGLES.get(type(request))
        if single is None or self._memory or self._closed or not self._at_once.acquire(blocking=False):
            return UNANSWERED
        try:
            if self._impatient is None:
                self._impatient = self._connect()
                self._impatient.execute("PRAGMA busy_timeout=0").close()
            return self._read(self._impatient, single, request)
        except (sqlite3.Error, StorageUnavailable):
            return UNANSWERED  # where one may wait, it is tried again
        finally:
            self._at_once.release()

    @contextlib.contextmanager
    def _connection(self, request: Any) -> Iterator[Any]:
        guard: Any = self._writing if self._memory or not is_read(request) else contextlib.nullcontext()
        with guard:
            connection = self._take()
            try:
                yield connection
            finally:
                self._give(connection)

    def _take(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return self._connect()

    def _give(self, connection: sqlite3.Connection) -> None:
        if self._closed or len(self._idle) >= self._settings.pool_size:
            connection.close()
        else:
            self._idle.append(connection)

    def _connect(self) -> sqlite3.Connection:
        try:
            fairy = self.engine.raw_connection()
        except (sqlite3.Error, sa.exc.SQLAlchemyError) as error:
            raise StorageUnavailable(f"SQLite: {error}") from error
        connection: Any = fairy.driver_connection
        if not self._memory:
            fairy.detach()
        return connection  # type: ignore[no-any-return]


def _set_up(connection: sqlite3.Connection, _record: object) -> None:
    # FULL syncs the log at each commit: what a call acknowledged survives a power cut too.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}").close()
