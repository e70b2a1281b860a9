"""Erasing a user from the archive: the files that hold his sessions are written anew without them."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from lifecycle.archive.entry import INDEX, Entry
from lifecycle.transfer.compression import compression_of
from lifecycle.transfer.files import NewFile, file_errors, reading, sync_directory
from lifecycle.transfer.format import BLOCK, Reader, Writer
from lifecycle.transfer.rows import Key, key

_LOCK: Final = ".lock"
_SET_ANEW: Final = ("format", "schema", "written_at")


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Be the only one that changes files of the archive; new ones are written all the same."""
    with file_errors(directory / _LOCK, "write"):
        descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def erase(file: Path, gone: set[Key], kept: list[Entry]) -> None:
    """Write a file anew without some sessions, then its index; or remove both when nothing is left.

    When it is interrupted, the index still names what is gone: a repeat ends it. Raises `InvalidFile` for a file that is
    not whole, which stays as it is.
    """
    index = file.with_name(file.name + INDEX)
    if kept:
        _rewrite(file, gone)
        _write_index(index, kept)
        return
    with file_errors(file, "remove"):
        # Without an index the file itself is looked through: an erasing that was interrupted here can be repeated.
        index.unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        sync_directory(file.parent)


def _rewrite(file: Path, gone: set[Key]) -> None:
    with reading(str(file)) as (stream, _):
        reader = Reader(stream, str(file))
        more: dict[str, Any] = {name: value for name, value in reader.header.items() if name not in _SET_ANEW}
        output = NewFile(file, compression_of(file))
        try:
            writer = Writer(output, reader.header["schema"], **more)
            for line in reader:
                if line.name == BLOCK:
                    writer.end_block()
                    writer.flush()
                elif key(line.row) not in gone:
                    writer.row(line.name, line.row)
            writer.end()
        except BaseException:
            output.discard()
            raise


def _write_index(index: Path, kept: list[Entry]) -> None:
    output = NewFile(index, "none")
    try:
        for entry in kept:
            output.write(entry.line())
        output.commit()
    except BaseException:
        output.discard()
        raise
