"""The journal's file: what is written is on the disk when the call returns, or is cut off again.

A transaction is written in one piece and synced; it counts from `settle` on, when whoever wrote it has taken it over.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from lifecycle.drivers import journal_format
from lifecycle.drivers.journal_format import Header, Tail, Transaction

JOURNAL: Final = "journal.jsonl"
FRESH: Final = "journal.jsonl.new"


class Journal:
    """The journal of a directory, open for reading it once and for appending to it."""

    def __init__(self, directory: Path) -> None:
        """Open the file of a directory. Raises OSError."""
        self.directory = directory
        self.path = directory / JOURNAL
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        self.tail = Tail()
        self._written: tuple[int, int] | None = None
        self._renamed = False

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def read(self, header: Header, file: BinaryIO) -> Iterator[Transaction]:
        """Yield the transactions, then cut off a torn tail: `tail` says what was found.

        What was read is on the disk then: a process that was killed may have written it and not come to sync it, and
        whoever reads it now acts on it. Raises StorageUnavailable for damage, and OSError.
        """
        self.tail = Tail()
        yield from journal_format.transactions(file, self.path, header, self.tail)
        if self.tail.torn:
            os.ftruncate(self._descriptor, self.tail.end)
        os.fsync(self._descriptor)
        sync_directory(self.directory)

    def write(self, lines: list[bytes], sequences: dict[str, int]) -> None:
        """Append a transaction and sync it. Raises OSError: then `cut` it off."""
        data = journal_format.commit(self.tail.number + 1, lines, sequences)
        if self._renamed:
            # A rename that is not on the disk would come undone in a power cut, and all that is written now with it.
            sync_directory(self.directory)
            self._renamed = False
        _write_all(self._descriptor, data, self.tail.end)
        os.fdatasync(self._descriptor)
        self._written = len(data), len(lines)

    def settle(self) -> None:
        """Count what was written as done."""
        if self._written is not None:
            (size, rows), self._written = self._written, None
            tail = self.tail
            tail.end, tail.number, tail.line, tail.rows = (
                tail.end + size, tail.number + 1, tail.line + rows + 1, tail.rows + rows,
            )  # fmt: skip

    def cut(self) -> None:
        """Cut off what a write left that failed. Raises OSError when it is not sure to be gone."""
        self._written = None
        os.ftruncate(self._descriptor, self.tail.end)
        os.fsync(self._descriptor)

    def replace(self, header: Header, parts: Iterable[list[bytes]], sequences: dict[str, int]) -> None:
        """Have a new file with these rows in place of the journal, in one step. Raises OSError: the old one stays."""
        tail = write_fresh(self.directory, header, parts, sequences)
        descriptor = os.open(self.directory / FRESH, os.O_RDWR | os.O_CLOEXEC)
        try:
            (self.directory / FRESH).rename(self.path)
        except BaseException:
            os.close(descriptor)
            raise
        old, self._descriptor, self.tail, self._renamed = self._descriptor, descriptor, tail, True
        os.close(old)
        with contextlib.suppress(OSError):  # tried again before the next write
            sync_directory(self.directory)
            self._renamed = False


def create(directory: Path, header: Header, parts: Iterable[list[bytes]], sequences: dict[str, int]) -> None:
    """Make the first journal of a directory. Raises OSError."""
    write_fresh(directory, header, parts, sequences)
    (directory / FRESH).rename(directory / JOURNAL)
    sync_directory(directory)


def write_fresh(directory: Path, header: Header, parts: Iterable[list[bytes]], sequences: dict[str, int]) -> Tail:
    """Write a whole journal beside the one in use and sync it; where it ends. What was begun is removed on failure."""
    path = directory / FRESH
    tail = Tail()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.suppress(FileNotFoundError):  # it takes the place of one, and keeps its mode
            os.fchmod(descriptor, stat.S_IMODE((directory / JOURNAL).stat().st_mode))
        tail.end = _write_all(descriptor, header.line(), 0)
        for part in parts:
            # The counters stand in the last one, which has no rows: it is there in an empty store too.
            _append(descriptor, tail, part, {})
        _append(descriptor, tail, [], sequences)
        if tail.number != header.snapshot:
            raise AssertionError(f"{tail.number} parts of a snapshot, not {header.snapshot}")
        os.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(descriptor)
    return tail


def sync_directory(directory: Path) -> None:
    """Have the names in a directory on the disk. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _append(descriptor: int, tail: Tail, lines: list[bytes], sequences: dict[str, int]) -> None:
    data = journal_format.commit(tail.number + 1, lines, sequences)
    tail.end = _write_all(descriptor, data, tail.end)
    tail.number += 1
    tail.line += len(lines) + 1
    tail.rows += len(lines)


def _write_all(descriptor: int, data: bytes, offset: int) -> int:
    """Write at an offset, all of it; the offset behind it."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        offset += written
        view = view[written:]
    return offset
