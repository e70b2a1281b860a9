"""The journal as text: its lines, how each is checked, and where a torn tail begins.

The first line is the header. Each transaction is one line for every row that it left changed, and a commit record:

    {"put":"sessions","row":{"tenant":"","session_id":"s1",...}}
    {"delete":"session_messages","key":{"tenant":"","session_id":"s1","seq":4}}
    {"commit":17,"rows":2,"sequences":{"session_transitions":40},"crc":"5f0c2a91"}

`crc` is the CRC-32 of all bytes since the commit record before it, up to itself.
"""

import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from lifecycle.errors import StorageUnavailable

FORMAT: Final = 1
STORE: Final = "lifecycle-jsonl"
_HEADER_BYTES: Final = 65_536
_SEALED: Final = re.compile(rb'^(\{.*),"crc":"([0-9a-f]{8})"\}\n$', re.DOTALL)
_COMMIT: Final = b'{"commit":'

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


@dataclass(frozen=True, slots=True)
class Header:
    """What the first line says of those below it."""

    revision: str | None
    """The schema's revision; None for a store that was taken back to no tables."""
    search_index: bool
    """Whether messages are indexed for search."""
    snapshot: int
    """So many transactions are the snapshot that the file began with: no torn tail reaches into them."""

    def line(self) -> bytes:
        """The header as it stands in the file."""
        return _seal(
            {
                "store": STORE, "format": FORMAT, "revision": self.revision,
                "search_index": self.search_index, "snapshot": self.snapshot,
            }, b"",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """A row as a transaction left it, or the key of one that it removed (`row` is None)."""

    table: str
    row: dict[str, Any] | None
    key: dict[str, Any] | None
    line: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction whose commit record is whole."""

    number: int
    changes: list[Change]
    sequences: dict[str, int]
    end: int
    """The offset behind it, in bytes."""
    line: int
    """The line of its commit record."""


@dataclass(slots=True)
class Tail:
    """Where what counts ends; filled in by `transactions` when it has come to the end."""

    end: int = 0
    number: int = 0
    line: int = 1
    torn: int = 0
    """Bytes behind the end that are no whole transaction."""
    rows: int = field(default=0)


def put(table: str, row: Mapping[str, Any]) -> bytes:
    """The line of a row as it is now."""
    return _line({"put": table, "row": row})


def delete(table: str, key: Mapping[str, Any]) -> bytes:
    """The line of a row that is gone."""
    return _line({"delete": table, "key": key})


def commit(number: int, lines: Sequence[bytes], sequences: Mapping[str, int]) -> bytes:
    """The lines of a transaction and the commit record behind them."""
    body = b"".join(lines)
    record: dict[str, Any] = {"commit": number, "rows": len(lines)}
    if sequences:
        record["sequences"] = sequences
    return body + _seal(record, body)


def read_header(file: BinaryIO, path: Path) -> Header:
    """Read the first line. Raises StorageUnavailable where it is not that of a journal, or of a newer release's."""
    line = file.readline(_HEADER_BYTES)
    fields = _unsealed(line, b"")
    if fields is None or fields.get("store") != STORE:
        raise StorageUnavailable(
            f"{path}, line 1: not the header of a Lifecycle store, or a damaged one; nothing was changed"
        )
    if fields.get("format") != FORMAT:
        raise StorageUnavailable(
            f"{path}, line 1: format {fields.get('format')!r}, this release reads {FORMAT}: a newer release wrote it;"
            " install that release of session-lifecycle"
        )
    return Header(fields["revision"], fields["search_index"], fields["snapshot"])


def transactions(file: BinaryIO, path: Path, header: Header, tail: Tail) -> Iterator[Transaction]:
    """Yield each whole transaction behind the header, and note in `tail` where the last one ends.

    What lies behind the last commit record is a torn tail if it can be what a write that broke off leaves: some whole
    lines of rows and the beginning of one more, or pages that never reached the disk and read as zeros. Anything else
    is damage. Raises StorageUnavailable, which says the line.
    """
    offset = tail.end = file.tell()
    number, line_no, checksum = 0, 1, 0
    changes: list[Change] = []
    problem: tuple[int, str] | None = None
    while raw := file.readline():
        line_no += 1
        offset += len(raw)
        if not raw.endswith(b"\n"):
            problem = _unended(raw, checksum, number, line_no)
            break
        if raw.startswith(_COMMIT):
            fields = _unsealed(raw, b"", checksum)
            if fields is None:
                problem = tail.line + 1, f"lines {tail.line + 1} to {line_no} do not have the checksum of their commit"
            elif fields["commit"] != number + 1 or fields["rows"] != len(changes):
                problem = line_no, f"transaction {number + 1} with {len(changes)} rows should end here"
            if problem is not None or fields is None:
                break
            number += 1
            tail.end, tail.number, tail.line = offset, number, line_no
            tail.rows += len(changes)
            yield Transaction(number, changes, fields.get("sequences", {}), offset, line_no)
            changes, checksum = [], 0
            continue
        change = _change(raw, line_no)
        if change is None:
            problem = line_no, "not a record of a journal"
            break
        changes.append(change)
        checksum = zlib.crc32(raw, checksum)
    tail.torn = _size(file) - tail.end
    if problem is not None and not _unwritten(file, tail):
        raise StorageUnavailable(_damaged(path, *problem, number))
    if number < header.snapshot:
        cut = f"the file ends within the snapshot it began with ({number} of {header.snapshot} transactions are whole)"
        raise StorageUnavailable(_damaged(path, line_no, cut, number))


def _damaged(path: Path, line_no: int, problem: str, number: int) -> str:
    return (
        f"{path}, line {line_no}: damaged: {problem}; nothing was changed. What stands before it is whole, up to"
        f" transaction {number}: restore the file from a copy, or remove it from this line on to go on without the rest"
    )


def _unended(raw: bytes, checksum: int, number: int, line_no: int) -> tuple[int, str] | None:
    """What is wrong with a last line that has no end, if it is no beginning of a line that was being written."""
    begins = any(raw.startswith(start) or start.startswith(raw) for start in (b'{"put":', b'{"delete":', _COMMIT))
    if not begins:
        return line_no, "not the beginning of a record"
    whole = raw.startswith(_COMMIT) and _unsealed(raw[:-1] + b"\n", b"", checksum)
    return (line_no, f"the end of transaction {number + 1} is not that of a line") if whole else None


def _unwritten(file: BinaryIO, tail: Tail) -> bool:
    """Whether what lies behind the end are pages of the last write that a power cut kept from the disk.

    They read as zeros, which JSON never holds. No write begins before the one ahead of it is on the disk, so that a
    later commit record tells damage.
    """
    file.seek(tail.end)
    rest = file.read()
    if b"\0" not in rest:
        return False
    later = [int(found) for found in re.findall(rb'^\{"commit":(\d+)', rest, re.MULTILINE)]
    return all(found <= tail.number + 1 for found in later)


def _size(file: BinaryIO) -> int:
    return file.seek(0, 2)


def _change(raw: bytes, line_no: int) -> Change | None:
    try:
        fields = json.loads(raw)
    except ValueError:
        return None
    match fields:
        case {"put": str(table), "row": dict(row)}:
            return Change(table, row, None, line_no)
        case {"delete": str(table), "key": dict(key)}:
            return Change(table, None, key, line_no)
    return None


def _line(fields: Mapping[str, Any]) -> bytes:
    return _encode(fields).encode() + b"\n"


def _seal(fields: Mapping[str, Any], body: bytes) -> bytes:
    """The fields as a line whose last one is the checksum of the body and of all before it."""
    start = _encode(fields).encode()[:-1]
    return start + b',"crc":"%08x"}\n' % zlib.crc32(start, zlib.crc32(body))


def _unsealed(line: bytes, body: bytes, checksum: int = 0) -> dict[str, Any] | None:
    """The fields of a sealed line; None where its checksum is not that of what stands there."""
    found = _SEALED.match(line)
    if found is None or zlib.crc32(found[1], zlib.crc32(body, checksum)) != int(found[2], 16):
        return None
    fields: dict[str, Any] = json.loads(found[1] + b"}")
    return fields
