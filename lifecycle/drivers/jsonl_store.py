"""The store behind `jsonl:///dir`: one process's SQLite database in memory, and the journal that it is made again from.

The journal is the truth. A transaction is on the disk before memory commits it; where the two may have come apart (an
interrupt in between, a disk that failed twice) memory is made anew from the journal before it is used again.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from lifecycle import migrate
from lifecycle.drivers import journal
from lifecycle.drivers.directory_lock import DirectoryLock
from lifecycle.drivers.journal import Journal
from lifecycle.drivers.journal_format import Header, Tail, read_header
from lifecycle.drivers.jsonl_directory import is_store
from lifecycle.drivers.replay import Replay
from lifecycle.drivers.row_images import Images
from lifecycle.drivers.schema_templates import empty_database
from lifecycle.errors import LifecycleError, SchemaOutdated, StorageUnavailable
from lifecycle.log import get_logger

log = get_logger("lifecycle")
T = TypeVar("T")

# The journal is written anew once it has both sizes: so many bytes, and so many times what its rows take.
COMPACT_BYTES: Final = 4 * 1024 * 1024
COMPACT_TIMES: Final = 4
_PART_ROWS: Final = 1000
_RETRY_TIMES: Final = 1.25


class Store:
    """A directory's rows, for the threads of this process in turn. `use`, `connected` and `commit` are for drivers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lock = threading.RLock()
        self.users = 0
        self.engine = sa.create_engine(
            "sqlite+pysqlite://",
            connect_args={"check_same_thread": False, "isolation_level": None},
            pool_reset_on_return=None,
            poolclass=sa.pool.StaticPool,
        )
        sa.event.listen(self.engine, "begin", self._begin_connected)
        sa.event.listen(self.engine, "commit", self._commit_connected)
        self._directory_lock = DirectoryLock(directory)
        self._journal: Journal | None = None
        self._connection: sqlite3.Connection | None = None
        self._images: Images | None = None
        self._revision: str | None = None
        self._settled = False
        # Whether what is written is noted, so that a commit finds it.
        self._attended = False
        self._closed = False
        self._lent = False
        self._compact_at = 0
        self._begun = (0, 0)

    @property
    def ready(self) -> bool:
        """Whether it can be used without reading the journal first; ask with the lock held."""
        return self._settled and self._attended and not self._lent and self._revision == migrate.head()

    def open(self) -> None:
        """Take the directory and read its journal, if it has one; otherwise nothing is made.

        Raises StorageUnavailable when another process has it, when it is somebody else's, or the journal is damaged.
        """
        with self.lock:
            if self._closed:
                raise LifecycleError("this manager is closed")
            if self._settled and (self._attended or self._journal is None):
                return
            if self._journal is None and not is_store(self.directory):
                return
            self._take()
            self._load()

    def close(self) -> None:
        """Let go of the directory."""
        with self.lock:
            self._closed = True
            self._forget()
            self._directory_lock.release()

    def abandon(self) -> None:
        """Close a forked child's copies of the files, and leave them as they are: they are the parent's."""
        self._closed = True
        self._directory_lock.abandon()
        if self._journal is not None:
            self._journal.close()

    @contextlib.contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone. Raises SchemaOutdated unless the schema is that of this release."""
        with self.lock:
            if not self.ready:
                if self._lent:
                    raise LifecycleError("this thread has the store's connection for itself: use that, or end it first")
                self.open()
                if self._connection is None:
                    raise SchemaOutdated(
                        f"there is no store in {self.directory} yet: run `{migrate.COMMAND}` (or call manager.setup())"
                    )
                migrate.compare(self._revision)
            assert self._connection is not None  # noqa: S101 - opened above
            yield self._connection

    def begin(self) -> None:
        """Note what is touched from here on."""
        if self._images is not None:
            self._images.forget()

    def commit(self) -> None:
        """Put the transaction on the disk, then commit it. Raises StorageUnavailable: then it is rolled back."""
        connection, images, file = self._open_parts()
        lines, sequences = images.changes()
        if not lines:
            connection.execute("COMMIT").close()
            return
        self._settled = False
        self._written(connection, lambda: file.write(lines, sequences))
        connection.execute("COMMIT").close()
        file.settle()
        self._settled = True
        if file.tail.end > self._compact_at:
            try:
                self._compact()
            except Exception:  # the transaction is done all the same; memory is made anew before its next use
                log.exception("journal_not_compacted", file=str(file.path))

    @contextlib.contextmanager
    def connected(self, *, create: bool = False) -> Iterator[sa.Connection]:
        """An SQLAlchemy connection for this thread alone, whatever the schema, which may be changed.

        A commit writes the whole journal anew. `create` makes the directory and its first journal where there is none.
        """
        with self.lock:
            self.open()
            if self._connection is None:
                if not create:
                    raise SchemaOutdated(f"there is no store in {self.directory} yet: run `{migrate.COMMAND}`")
                self._make()
            self._attended = False
            if self._images is not None:
                self._images.leave()
            self._lent = True
            try:
                with self.engine.connect() as connection:
                    yield connection
            finally:
                self._lent = False
                if self._journal is None:
                    self._forget()  # nothing was committed
                    self._directory_lock.release()
                elif self._settled:
                    self._attend()

    def compact(self) -> None:
        """Write the journal anew, without what is no longer so."""
        with self.use():
            self._compact()

    def _open_parts(self) -> tuple[sqlite3.Connection, Images, Journal]:
        if self._connection is None or self._images is None or self._journal is None:
            raise LifecycleError("this manager is closed")
        return self._connection, self._images, self._journal

    def _take(self) -> None:
        if self._journal is None:
            self._directory_lock.take()

    def _make(self) -> None:
        """Take a directory that holds nothing yet, and have an empty database."""
        try:
            self.directory.mkdir(exist_ok=True)
            journal.sync_directory(self.directory.parent)
        except OSError as error:
            raise StorageUnavailable(f"the store {self.directory} cannot be made: {error.strerror}") from error
        self._directory_lock.take()
        if is_store(self.directory):  # another process was faster, and has ended
            self._load()
            return
        self._connection = empty_database(self.engine, None, search_index=False)
        self._revision = None
        self._settled = True

    def _load(self) -> None:
        """Make memory anew from the journal."""
        began = time.monotonic()
        self._forget()
        try:
            (self.directory / journal.FRESH).unlink(missing_ok=True)
            self._journal = file = Journal(self.directory)
            snapshot_end = self._replay(file)
        except OSError as error:
            self._let_go()
            raise StorageUnavailable(f"the store {self.directory} cannot be read: {error.strerror or error}") from error
        except BaseException:
            self._let_go()
            raise
        self._settled = True
        tail, seconds = file.tail, round(time.monotonic() - began, 3)
        if tail.torn:
            log.warning("journal_tail_cut", file=str(file.path), bytes=tail.torn, line=tail.line + 1)
        log.debug("journal_replayed", file=str(file.path), transactions=tail.number, bytes=tail.end, seconds=seconds)
        self._compact_at = _due(snapshot_end)
        if tail.end > self._compact_at:
            self._compact()

    def _replay(self, file: Journal) -> int:
        """Fill memory; where the snapshot ends that the journal began with."""
        with file.path.open("rb") as lines:
            header = read_header(lines, file.path)
            migrate.require_known(header.revision)
            self._revision = header.revision
            self._connection = empty_database(self.engine, header.revision, search_index=header.search_index)
            self._images = images = Images(self._connection, apart=(migrate.VERSION_TABLE,))
            found = Replay(file.path, header, images.tables)
            found.take(file.read(header, lines))
        self._connection.execute("BEGIN").close()
        images.load({name: rows.values() for name, rows in found.rows.items()}, found.sequences)
        self._connection.execute("COMMIT").close()
        images.attend()
        self._attended = True
        return found.snapshot_end

    def _let_go(self) -> None:
        self._forget()
        self._directory_lock.release()

    def _forget(self) -> None:
        """Close what is open; the lock stays."""
        if self._journal is not None:
            self._journal.close()
        self._journal = self._connection = self._images = None
        self._settled = self._attended = False
        self.engine.dispose()

    def _attend(self) -> None:
        assert self._connection is not None  # noqa: S101 - within `connected`
        self._settled = False
        self._images = Images(self._connection, apart=(migrate.VERSION_TABLE,))
        self._images.attend()
        self._settled = self._attended = True

    def _written(self, connection: sqlite3.Connection, write: Callable[[], T]) -> T:
        """Do what writes to the disk; where it fails, the transaction is rolled back and what was written cut off."""
        try:
            return write()
        except OSError as error:
            unknown = False
            try:
                if connection.in_transaction:
                    connection.execute("ROLLBACK").close()
                if self._journal is not None:
                    self._journal.cut()
                self._settled = True
            except OSError:
                unknown = True  # memory is made anew from what is found there
            raise StorageUnavailable(
                f"the store {self.directory} cannot be written: {error.strerror or error}", outcome_unknown=unknown
            ) from error

    def _begin_connected(self, begun: sa.Connection) -> None:
        begun.exec_driver_sql("BEGIN IMMEDIATE")
        self._begun = _changes(begun.connection.driver_connection)

    def _commit_connected(self, _connection: sa.Connection) -> None:
        """Follow a commit of SQLAlchemy's, whatever it changed, with a whole journal; the commit then finds it done."""
        connection = self._connection
        if connection is None or not connection.in_transaction or _changes(connection) == self._begun:
            return
        images = Images(connection, apart=(migrate.VERSION_TABLE,))
        header = _header(connection, images)
        self._settled = False
        self._written(connection, lambda: self._rewrite(images, header))
        connection.execute("COMMIT").close()
        self._revision = header.revision
        self._settled = True

    def _compact(self) -> None:
        """Write the journal anew; where that fails it stays as it is, and is tried again when it has grown on."""
        connection, images, file = self._open_parts()
        before, began = file.tail.end, time.monotonic()
        self._settled = False
        try:
            self._rewrite(images, _header(connection, images))
        except OSError as error:
            self._compact_at = int(before * _RETRY_TIMES)
            log.warning("journal_not_compacted", file=str(file.path), error=error.strerror or str(error))
        else:
            seconds = round(time.monotonic() - began, 3)
            log.debug("journal_compacted", file=str(file.path), before=before, after=file.tail.end, seconds=seconds)
        self._settled = True

    def _rewrite(self, images: Images, header: Header) -> None:
        parts, sequences = images.snapshot(_PART_ROWS), images.sequences(images.tables)
        if self._journal is None:
            journal.create(self.directory, header, parts, sequences)
            self._journal = Journal(self.directory)
            self._journal.tail = Tail(self._journal.path.stat().st_size, header.snapshot)
        else:
            self._journal.replace(header, parts, sequences)
        self._compact_at = _due(self._journal.tail.end)


def _header(connection: sqlite3.Connection, images: Images) -> Header:
    names = {name for (name,) in connection.execute("SELECT name FROM main.sqlite_master")}
    found = None
    if migrate.VERSION_TABLE in names:
        found = connection.execute(f"SELECT version_num FROM {migrate.VERSION_TABLE}").fetchone()
    parts = -(-images.count() // _PART_ROWS) + 1
    return Header(found[0] if found else None, migrate.CONTENT_TABLE in names, parts)


def _changes(connection: Any) -> tuple[int, int]:
    """What tells that rows or the schema were changed."""
    (version,) = connection.execute("PRAGMA schema_version").fetchone()
    return connection.total_changes, version


def _due(snapshot: int) -> int:
    return max(COMPACT_BYTES, COMPACT_TIMES * snapshot)
