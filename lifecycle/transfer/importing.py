"""Import: the lines of an export into a database, all of them or none."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Literal, get_args

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

# Rows are sent in batches of so many, or of so many characters.
_ROWS: Final = 5000
_CHARS: Final = 4 * 1024 * 1024
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
            batch = _Batch(connection, target, on_conflict)
            for line in reader:
                if line.name != BLOCK:
                    _check_row(line, reader, tenant, target)
                batch.add(line)
                if batch.full:
                    batch.send()
                    if progress is not None:
                        progress(reader.rows.total(), _position(raw))
            batch.send()
            size = _position(raw) or reader.position
            if target is not None:
                connection.commit()
    return TransferReport.of_rows(
        source, batch.written, size=size, seconds=time.monotonic() - began, dry_run=dry_run,
        skipped=batch.skipped, replaced=batch.replaced,
    )  # fmt: skip


class _Batch:
    """Rows that wait to be sent together: those of whole blocks, or some of one."""

    def __init__(self, connection: Connection, target: Target | None, on_conflict: OnConflict) -> None:
        self.written: Counter[str] = Counter()
        self.skipped = self.replaced = 0
        self._connection = connection
        self._target = target
        self._on_conflict = on_conflict
        self._rows: dict[str, list[Row]] = {}
        self._loose: list[Row] = []
        self._count = self._chars = 0
        # Sessions of the block that is being read whose rows are passed over, in this batch and the next.
        self._passed: set[Key] = set()

    @property
    def full(self) -> bool:
        """Whether it is time to send them."""
        return self._count >= _ROWS or self._chars >= _CHARS

    def add(self, line: Line) -> None:
        """Add a row; a block's end lets go of what was kept for it."""
        if line.name == BLOCK:
            if self._passed:
                self.send()
                self._passed.clear()
            return
        if line.loose:
            self._loose.append(line.row)
        else:
            self._rows.setdefault(line.name, []).append(line.row)
        self._count += 1
        self._chars += sum(len(value) for value in line.row.values() if type(value) is str)

    def send(self) -> None:
        """Store what waits."""
        self._settle_conflicts()
        for name, table in TABLES.items():
            rows = self._rows.get(name, [])
            if self._passed:
                rows = [row for row in rows if key(row) not in self._passed]
            if name == t.transitions.name:
                rows += self._unknown_tombstones()
            if rows:
                self.written[name] += len(rows)
                if self._target is not None:
                    self._target.insert(table, rows)
        self._rows.clear()
        self._loose.clear()
        self._count = self._chars = 0

    def _settle_conflicts(self) -> None:
        sessions = self._rows.get(_SESSIONS, [])
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

    def _unknown_tombstones(self) -> list[Row]:
        """What is known of removed sessions is not stored again, nor of one that is there."""
        keys = [key(row) for row in self._loose]
        there, known = present(self._connection, keys), tombstones(self._connection, keys)
        return [
            row
            for row in self._loose
            if key(row) not in there and (*key(row), row["seq"], row["created_at"]) not in known
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
