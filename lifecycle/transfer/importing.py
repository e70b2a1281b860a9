"""Import: the lines of an export into a database, all of them or none."""

import time
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, Literal, Self, get_args

from lifecycle import migrate
from lifecycle.errors import InvalidArgument, InvalidFile, SessionExists
from lifecycle.models import tables as t
from lifecycle.transfer.connections import Connection, connected
from lifecycle.transfer.files import reading
from lifecycle.transfer.format import BLOCK, Line, Reader
from lifecycle.transfer.report import TransferReport
from lifecycle.transfer.rows import TABLES, Key, Row, key
from lifecycle.transfer.target import Target, present, tombstones

OnConflict = Literal["error", "skip", "replace"]
# Called with the rows read so far and the bytes of the file that they took.
Progress = Callable[[int, int], None]

# Rows are sent in batches of so many, or of lines of so many bytes.
_ROWS: Final = 5000
_BYTES: Final = 4 * 1024 * 1024
_SESSIONS: Final = t.sessions.name


def import_sessions(
    url: str,
    source: str,
    *,
    on_conflict: OnConflict = "error",
    tenant: str | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> TransferReport:
    """Store what an export holds (`-` is standard input), in one transaction, and report.

    A session that is there already is an error, or stays as it is with `skip`, or is replaced with all it owns. With a
    `tenant`, a session of another one is an error. The dry run reads and checks every line and writes nothing.
    Raises `InvalidFile`, `SessionExists`, `SchemaOutdated`, `StorageUnavailable`, `FileUnavailable`.
    """
    if on_conflict not in get_args(OnConflict):
        raise InvalidArgument(f"on_conflict must be one of {', '.join(get_args(OnConflict))}, not {on_conflict!r}")
    began = time.monotonic()
    with reading(source) as (stream, raw):
        reader = Reader(stream, source)
        reader.check_schema(migrate.head())
        with connected(url, writing=not dry_run) as connection:
            target = None if dry_run else Target(connection, _last_transition(reader))
            store = _Store(connection, target, on_conflict)
            with _Ahead(connection) as ahead:
                batch = _Batch()
                for line in reader:
                    if line.name != BLOCK:
                        _check_row(line, reader, tenant, target)
                    batch.add(line)
                    if batch.full:
                        ahead.run(store.take, batch)
                        batch = _Batch(batch.open)
                        if progress is not None:
                            progress(reader.rows.total(), _position(raw))
                ahead.run(store.take, batch)
            size = _position(raw) or reader.position
            if target is not None:
                connection.commit()
    return TransferReport.of_rows(
        source, store.written, size=size, seconds=time.monotonic() - began, dry_run=dry_run,
        skipped=store.skipped, replaced=store.replaced,
    )  # fmt: skip


class _Batch:
    """Rows to be stored together: those of whole blocks, or some of one."""

    def __init__(self, open_: Collection[Key] = ()) -> None:
        self.rows: dict[str, list[Row]] = {}
        self.loose: list[Row] = []
        self.open = set(open_)
        """The sessions of the block that is not ended yet: more of theirs may come in the next batch."""
        self._count = self._size = 0

    @property
    def full(self) -> bool:
        """Whether it is time to store them."""
        return self._count >= _ROWS or self._size >= _BYTES

    def add(self, line: Line) -> None:
        """Add a row, or let a block end."""
        if line.name == BLOCK:
            self.open.clear()
            return
        if line.loose:
            self.loose.append(line.row)
        else:
            self.rows.setdefault(line.name, []).append(line.row)
            if line.name == _SESSIONS:
                self.open.add(key(line.row))
        self._count += 1
        self._size += line.size


class _Ahead:
    """Has one batch stored by a thread of its own, while the next one is read. A file of SQLite's is its thread's alone."""

    def __init__(self, connection: Connection) -> None:
        self._threads = None if connection.kind == "sqlite" else ThreadPoolExecutor(1, "lifecycle-import")
        self._under_way: Future[None] | None = None

    def run(self, store: Callable[[_Batch], None], batch: _Batch) -> None:
        """Begin to store a batch, once the one before it is stored. Raises what came of that."""
        self._wait()
        if self._threads is None:
            store(batch)
        else:
            self._under_way = self._threads.submit(store, batch)

    def _wait(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the last one. What is wrong with a batch is raised before what is wrong in the file behind it."""
        if self._threads is not None:
            self._threads.shutdown()
        if kind is None or issubclass(kind, Exception):
            self._wait()


class _Store:
    """Stores batches, each behind a look at which of its sessions are there."""

    def __init__(self, connection: Connection, target: Target | None, on_conflict: OnConflict) -> None:
        self.written: Counter[str] = Counter()
        self.skipped = self.replaced = 0
        self._connection = connection
        self._target = target
        self._on_conflict = on_conflict
        # Sessions that are passed over, of which more may come.
        self._passed: set[Key] = set()

    def take(self, batch: _Batch) -> None:
        """Store a batch."""
        self._settle_conflicts(batch.rows.get(_SESSIONS, []))
        for name, table in TABLES.items():
            rows = batch.rows.get(name, [])
            if self._passed:
                rows = [row for row in rows if key(row) not in self._passed]
            if name == t.transitions.name:
                rows += self._unknown_tombstones(batch.loose)
            if rows:
                self.written[name] += len(rows)
                if self._target is not None:
                    self._target.insert(table, rows)
        self._passed &= batch.open

    def _settle_conflicts(self, sessions: list[Row]) -> None:
        found = present(self._connection, [key(row) for row in sessions], locking=self._target is not None)
        if not found:
            return
        if self._on_conflict == "error":
            raise SessionExists(min(found)[1])
        if self._on_conflict == "skip":
            self._passed |= found.keys()
            self.skipped += len(found)
            return
        self.replaced += len(found)
        if self._target is not None:
            self._target.remove(sorted(found))
        for row in sessions:
            _outdo(row, found.get(key(row)))

    def _unknown_tombstones(self, loose: list[Row]) -> list[Row]:
        """What is known of removed sessions is not stored again, nor of one that is there."""
        keys = [key(row) for row in loose]
        there, known = present(self._connection, keys), tombstones(self._connection, keys)
        return [
            row for row in loose if key(row) not in there and (*key(row), row["seq"], row["created_at"]) not in known
        ]


def _outdo(row: Row, epoch: int | None) -> None:
    """No lease of the session that is replaced, nor an older one of the file, is the new one's."""
    if epoch is not None:
        row |= {"lease_epoch": max(epoch, row["lease_epoch"]) + 1, "lease_holder": None, "lease_expires_at": None}


def _last_transition(reader: Reader) -> int | None:
    last: Any = reader.header.get("last_transition")
    return last if type(last) is int and 0 <= last < 2**63 else None


def _check_row(line: Line, reader: Reader, tenant: str | None, target: Target | None) -> None:
    if tenant is not None and line.row["tenant"] != tenant:
        problem = f"it is tenant {line.row['tenant']!r}'s, not {tenant!r}'s"
        raise InvalidFile(reader.source, problem, line=line.number, field=f"{line.name}.tenant")
    if line.name == t.transitions.name and target is not None and target.keeps_ids:
        last = reader.header["last_transition"]
        if line.row["id"] > last:
            problem = f"must be at most {last}, the last one by the file's first line; not {line.row['id']}"
            raise InvalidFile(reader.source, problem, line=line.number, field=f"{line.name}.id")


def _position(raw: Any) -> int:
    try:
        return int(raw.tell())
    except (OSError, ValueError):
        return 0
