"""The lines of an export, or of a file of the archive, and what has to follow what.

    {"lifecycle":{"format":1,"schema":"0001",...}}     what it is
    {"sessions":{...}}                                 a block: some sessions in the order of their keys,
    {"session_messages":{...}}                         then what belongs to them, a table after the other
    {"block":{"lines":2}}                              its end
    {"end":{"lines":4,"rows":{...},"sha256":"..."}}    the end: what was cut off before it is no export

A block without sessions holds lines of the audit log that outlived theirs.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from operator import itemgetter
from typing import IO, Any, Final, NamedTuple, Protocol

from lifecycle.errors import InvalidFile
from lifecycle.models import tables as t
from lifecycle.transfer.files import is_at_end, read_line
from lifecycle.transfer.plain import read_plain
from lifecycle.transfer.rows import TABLES, BadRow, Key, Row, decode, decode_line, encode, encode_line, order

FORMAT: Final = 1
BLOCK: Final = "block"
_HEADER: Final = "lifecycle"
_END: Final = "end"
# So many sessions a block may have: whoever reads it keeps their keys.
LARGEST_BLOCK: Final = 10_000
_LONGEST_HEADER: Final = 1 << 16
_LONGEST_LINE: Final = 1 << 30
_BUFFER: Final = 1 << 16
# Repeated ids of messages are found up to so many in a session; the database finds them beyond.
_REMEMBERED: Final = 100_000

_RANK: Final = {name: rank for rank, name in enumerate(TABLES)}
_ORDER: Final[Mapping[str, Callable[[Row], Any]]] = {
    name: itemgetter(*(column.name for column in order(table))) for name, table in TABLES.items()
}
_SESSIONS: Final = t.sessions.name
_MESSAGES: Final = t.messages.name
_LOG: Final = t.transitions.name


class Output(Protocol):
    """Where lines go."""

    def write(self, data: bytes) -> None:
        """Add to it."""

    def flush(self) -> None:
        """Have it readable so far."""

    def commit(self) -> int:
        """Put it where it belongs: its size in bytes."""

    def discard(self) -> None:
        """Take it back."""


class Writer:
    """Writes lines, counts them, and ends with what was counted."""

    def __init__(self, output: Output, schema: str, **more: Any) -> None:
        self.output = output
        self.rows: Counter[str] = Counter()
        self.position = 0
        self._lines = self._block = 0
        self._digest = hashlib.sha256()
        self._buffer: list[bytes] = []
        self._buffered = 0
        header = {"format": FORMAT, "schema": schema, "written_at": datetime.now(UTC).isoformat(), **more}
        self._line(encode_line({_HEADER: header}))

    def row(self, name: str, row: Mapping[str, Any]) -> None:
        """Add a row of the table called `name`."""
        self._line(encode(name, row))
        self.rows[name] += 1
        self._block += 1

    def end_block(self) -> None:
        """End the block, if it has begun."""
        if self._block:
            self._line(encode_line({BLOCK: {"lines": self._block}}))
            self._block = 0

    def flush(self) -> None:
        """Have everything so far readable, whatever becomes of the rest."""
        self._write()
        self.output.flush()

    def end(self) -> int:
        """Write the last line and put it all where it belongs: its size in bytes."""
        self.end_block()
        self._write()
        end = {"lines": self._lines, "rows": dict(self.rows), "sha256": self._digest.hexdigest()}
        self.output.write(encode_line({_END: end}))
        return self.output.commit()

    def _line(self, line: bytes) -> None:
        self._buffer.append(line)
        self._buffered += len(line)
        self._lines += 1
        self.position += len(line)
        if self._buffered >= _BUFFER:
            self._write()

    def _write(self) -> None:
        data = b"".join(self._buffer)
        self._buffer.clear()
        self._buffered = 0
        self._digest.update(data)
        self.output.write(data)


class Line(NamedTuple):
    """A row with the table it belongs to, the number of its line and its bytes; the table is `BLOCK` for the end of one.

    A loose one is a line of the audit log that outlived its session.
    """

    number: int
    name: str
    row: Row
    size: int
    loose: bool = False


class Reader:
    """Reads lines and checks them, each by itself and in their order, keeping only what one block needs.

    Raises `InvalidFile`, which says the line, and the column if it is one's value.
    """

    def __init__(self, stream: IO[bytes], source: str) -> None:
        self.source = source
        self.number = 0
        self.position = 0
        self.rows: Counter[str] = Counter()
        self._stream = stream
        self._digest = hashlib.sha256()
        self._last_key: Key | None = None
        self._begin_block()
        self.header = self._read_header()

    def __iter__(self) -> Iterator[Line]:
        """The rows, and the end of each block, up to the last line, which has to agree with them."""
        while True:
            line = self._read(_LONGEST_LINE)
            if not line.endswith(b"\n"):
                what = "in the middle of it" if line else "before it"
                raise InvalidFile(
                    self.source, f"the file ends {what}, without its last line: it was cut off", line=self.number
                )
            try:
                read = read_plain(line) or self._read_closely(line)
                if read is None:
                    return
                name, row = read
                if row:
                    self._check_order(name, row)
            except BadRow as bad:
                raise InvalidFile(self.source, bad.problem, line=self.number, field=bad.field) from None
            self._digest.update(line)
            yield Line(self.number, name, row, len(line), self._loose)

    def _read_closely(self, line: bytes) -> tuple[str, Row] | None:
        """A row with its table, the end of a block, or None for the end of the file; it agrees with what came before."""
        name, value = decode_line(line)
        if name == _END:
            self._check_end(value)
            return None
        if name == BLOCK:
            self._check_block(value)
            return name, {}
        if name not in TABLES:
            raise BadRow(None, f"there is no table {name!r}")
        return name, decode(name, value)

    def check_schema(self, revision: str) -> None:
        """Raise `InvalidFile` unless the rows are of this revision of the schema."""
        if self.header["schema"] != revision:
            raise InvalidFile(
                self.source,
                f"it was written at revision {self.header['schema']} of the schema, this release is at {revision}: import"
                f" it with the release that wrote it{_release(self.header)}, then migrate the database",
                line=1,
            )

    def _read(self, limit: int) -> bytes:
        self.number += 1
        line = read_line(self._stream, limit, self.source, self.number)
        self.position += len(line)
        return line

    def _read_header(self) -> Mapping[str, Any]:
        line = self._read(_LONGEST_HEADER)
        if not line:
            raise InvalidFile(self.source, "it is empty, or was cut off before anything of it can be read")
        try:
            name, header = decode_line(line)
        except BadRow as bad:
            problem = f"this is no export of Lifecycle: its first line {bad.problem}"
            raise InvalidFile(self.source, problem, line=1) from None
        if name != _HEADER or not isinstance(header, dict) or not isinstance(header.get("schema"), str):
            raise InvalidFile(self.source, "this is no export of Lifecycle: its first line says nothing of it", line=1)
        if header.get("format") != FORMAT:
            problem = (
                f"it has the format {header.get('format')!r}, this release reads {FORMAT}: use the one that wrote it"
            )
            raise InvalidFile(self.source, problem + _release(header), line=1)
        self._digest.update(line)
        return header

    def _begin_block(self) -> None:
        self._keys: set[Key] = set()
        self._size = 0
        self._rank = 0
        self._loose = False
        self._last: tuple[Any, ...] | None = None
        self._message_ids: set[str] = set()

    def _check_order(self, name: str, row: Row) -> None:
        place = _ORDER[name](row)
        own = place[:2]
        if self._size == 0:
            self._loose = name != _SESSIONS
        self._size += 1
        self.rows[name] += 1
        if self._loose:
            if name != _LOG or row["to_state"] is not None:
                raise BadRow(None, f"a row of {name} stands before its session {own[1]!r}")
        elif name == _SESSIONS:
            if self._rank:
                raise BadRow(None, f"the block of session {own[1]!r} begins before the one before it is ended")
            if self._last_key is not None and own <= self._last_key:
                raise BadRow(None, f"session {own[1]!r} is here twice, or the sessions are not in order")
            if len(self._keys) == LARGEST_BLOCK:
                raise BadRow(None, f"a block has more than {LARGEST_BLOCK:,} sessions")
            self._last_key = own
            self._keys.add(own)
            return
        elif own not in self._keys:
            raise BadRow(None, f"a row of {name} belongs to session {own[1]!r}, which is not in its block")
        rank = _RANK[name]
        if rank < self._rank:
            raise BadRow(None, f"a row of {name} stands behind those of a later table")
        if rank > self._rank:
            self._rank, self._last = rank, None
        if self._last is not None and place <= self._last:
            raise BadRow(None, f"a row of {name} of session {own[1]!r} is here twice, or they are not in order")
        if name == _MESSAGES:
            self._check_message(row, own)
        self._last = place

    def _check_message(self, row: Row, own: Key) -> None:
        if self._last is None or self._last[:2] != own:
            self._message_ids.clear()
        if row["message_id"] in self._message_ids:
            raise BadRow(f"{_MESSAGES}.message_id", f"session {own[1]!r} has two messages {row['message_id']!r}")
        if len(self._message_ids) < _REMEMBERED:
            self._message_ids.add(row["message_id"])

    def _check_block(self, value: Any) -> None:
        lines = value.get("lines") if isinstance(value, dict) else None
        if lines != self._size:
            raise BadRow(None, f"the block has {self._size} lines, and should have {lines}: lines are missing or added")
        self._begin_block()

    def _check_end(self, value: Any) -> None:
        if self._size:
            raise BadRow(None, "the last block is not ended: lines are missing")
        expected = {"lines": self.number - 1, "rows": dict(self.rows), "sha256": self._digest.hexdigest()}
        for name, counted in expected.items():
            if not isinstance(value, dict) or value.get(name) != counted:
                given = value.get(name) if isinstance(value, dict) else None
                raise BadRow(None, f"the file has {name} {counted}, and should have {given}: it was changed or damaged")
        if not is_at_end(self._stream, self.source, self.number + 1):
            raise BadRow(None, "there is more behind the last line")


def _release(header: Mapping[str, Any]) -> str:
    return f" ({header['release']})" if "release" in header else ""
