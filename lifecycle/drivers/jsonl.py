"""The driver for a directory of JSONL files: SQLite's statements on the store that this process has in memory."""

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

from lifecycle import urls
from lifecycle.drivers import jsonl_stores
from lifecycle.drivers.sqlite import UNANSWERED, SqliteDialect
from lifecycle.errors import InvalidArgument, LifecycleError
from lifecycle.recipes import book
from lifecycle.settings import DatabaseSettings

_SINGLES = book.SINGLES["sqlite"]


class JsonlDriver(SqliteDialect):
    """One thread at a time reads or writes; all managers of a directory in this process share the store."""

    def __init__(self, settings: DatabaseSettings) -> None:
        directory = urls.jsonl_directory(settings.url)
        if directory is None:
            raise InvalidArgument("url: must name a directory, as in jsonl:///sessions")
        self.store = jsonl_stores.borrow(directory)
        self._closed = False
        super().__init__(settings, self.store.engine)

    def close(self) -> None:
        """Give the store back; the last manager to do so lets go of the directory."""
        if not self._closed:
            self._closed = True
            jsonl_stores.release(self.store)

    def meet_at_once(self, request: Any) -> Any:
        """The answer to a read by key where nobody is using the store just now, or `UNANSWERED`."""
        single = _SINGLES.get(type(request))
        store = self.store
        if single is None or self._closed or not store.lock.acquire(blocking=False):
            return UNANSWERED
        try:
            if not store.ready:
                return UNANSWERED
            with store.use() as connection:
                return self._read(connection, single, request)
        except sqlite3.Error:
            return UNANSWERED  # where one may wait, it is tried again
        finally:
            store.lock.release()

    def _meet(self, request: Any) -> Any:
        single = _SINGLES.get(type(request))
        if single is None:
            return super()._meet(request)
        with self._connection(request) as connection:
            try:
                return self._read(connection, single, request)
            except sqlite3.Error as error:
                raise self._translate(error, committing=False, limited=False) from error

    @contextlib.contextmanager
    def _connection(self, request: Any) -> Iterator[Any]:
        del request
        if self._closed:
            raise LifecycleError("this manager is closed")
        with self.store.use() as connection:
            yield connection

    def _begin(self, cursor: Any, request: Any) -> None:
        self.store.begin()
        super()._begin(cursor, request)

    def _commit(self, cursor: Any) -> None:
        del cursor
        self.store.commit()
