"""What the archive's index says of a session in one of its files."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from lifecycle.errors import InvalidFile
from lifecycle.transfer.files import reading
from lifecycle.transfer.format import BLOCK, Reader
from lifecycle.transfer.rows import BadRow, Key, Row, decode_line, encode_line

INDEX: Final = ".index"
_SESSION: Final = "session"
# The file's first line says why its sessions were removed.
REMOVED: Final = "removed"


class Entry(NamedTuple):
    """A session in the archive; `file` is below the archive's directory, `reason` and `actor` those of its removal."""

    archived_at: datetime
    tenant: str
    session_id: str
    kind: str
    user_id: str | None
    agent_id: str | None
    title: str | None
    state: str
    version: int
    message_count: int
    reason: str | None
    actor: str | None
    file: str

    @classmethod
    def of(cls, row: Mapping[str, Any], removed: Mapping[str, Any], file: str) -> Self:
        """The entry of a session's row, removed at a time, for a reason, by somebody."""
        at = removed.get("at")
        values = {name: row[name] for name in _FROM_ROW}
        return cls(
            archived_at=datetime.fromisoformat(at) if isinstance(at, str) else datetime.fromtimestamp(0, UTC),
            reason=removed.get("reason"), actor=removed.get("actor"), file=file, **values,
        )  # fmt: skip

    @property
    def key(self) -> Key:
        """The session's key."""
        return self.tenant, self.session_id

    def line(self) -> bytes:
        """Its line in the index, which does not say the file's name: that may change."""
        values = self._asdict()
        del values["file"]
        return encode_line({_SESSION: values})

    def as_dict(self) -> dict[str, Any]:
        """Its fields."""
        return self._asdict()


_FROM_ROW: Final = (
    "tenant", "session_id", "kind", "user_id", "agent_id", "title", "state", "version", "message_count",
)  # fmt: skip


def needle(field: str, value: str) -> bytes:
    """What stands in the line of every entry with this value, and in few others."""
    return encode_line({field: value})[1:-2]


def read_index(file: Path, name: str, wanted: bytes | None) -> list[Entry]:
    """The entries of a file of the archive, from its index, or from itself where that is missing or damaged.

    With `wanted`, only those are looked at whose lines hold it.
    """
    try:
        content = file.with_name(file.name + INDEX).read_bytes()
        if wanted is not None and wanted not in content:
            return []
        lines = content.splitlines(keepends=True)
        return [_read_entry(line, name) for line in lines if wanted is None or wanted in line]
    except (OSError, BadRow, KeyError, TypeError, ValueError):
        return list(scan(file, name))


def scan(file: Path, name: str) -> Iterator[Entry]:
    """The entries of the sessions that are whole in a file of the archive, up to where it is damaged or cut off."""
    try:
        with reading(str(file)) as (stream, _):
            reader = Reader(stream, str(file))
            removed = reader.header.get(REMOVED)
            sessions: list[Row] = []
            for line in reader:
                if line.name == BLOCK:
                    yield from (Entry.of(row, removed if isinstance(removed, dict) else {}, name) for row in sessions)
                    sessions = []
                elif line.name == "sessions":
                    sessions.append(line.row)
    except InvalidFile:
        return


def _read_entry(line: bytes, file: str) -> Entry:
    if not line.endswith(b"\n"):
        raise BadRow(None, "is cut off")
    name, values = decode_line(line)
    if name != _SESSION:
        raise BadRow(None, "is no entry")
    return Entry(**values | {"archived_at": datetime.fromisoformat(values["archived_at"]), "file": file})
