"""Reading a transcript: from where the last reading ended if nothing before it changed, else from its beginning."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from lifecycle.directories.layout import Facts, facts_of

_EDGE_BYTES: Final = 1024
_START: Final = b'{"type":'
_STARTS: Final = 50
ENTRY_TYPES: Final = ("session", "message", "custom_message", "custom", "compaction", "branch_summary")
"""What entries are, as far as known; those of other types are kept too."""


class Place(NamedTuple):
    """How far a transcript was read: the file as it was then, and the offset behind the last whole line.

    By digests of what stood at the beginning and before that offset, a rewritten file is told from one that grew.
    """

    facts: Facts
    offset: int
    head: str
    tail: str

    def as_json(self) -> list[Any]:
        """The place as it stands in a session's metadata."""
        return [*self.facts, self.offset, self.head, self.tail]

    @classmethod
    def from_json(cls, value: Any) -> "Place | None":
        """The place in a session's metadata; None for anything else, which has the file read anew."""
        match value:
            case [int(inode), int(size), int(mtime), int(offset), str(head), str(tail)]:
                return cls(Facts(inode, size, mtime), offset, head, tail)
        return None


class Line(NamedTuple):
    """One entry of a transcript: where its line begins, and how many bytes it has."""

    entry: dict[str, Any]
    offset: int
    length: int


class Problem(NamedTuple):
    """A line that is none: where it begins, and why."""

    offset: int
    reason: str


@dataclass
class Reading:
    """One reading of a transcript. `place`, `torn` and `problems` are complete once `lines` has come to its end."""

    path: Path
    fresh: bool
    place: Place | None
    problems: list[Problem]
    bytes_read: int = 0
    torn: int = 0
    """Bytes of a last line that is not there in full yet."""
    start: int = 0

    def lines(self) -> Iterator[Line]:
        """The entries from where the reading begins. Raises OSError."""
        with self.path.open("rb") as file:
            facts = facts_of(os.fstat(file.fileno()))
            file.seek(self.start)
            at, first, last = self.start, b"", b""
            while at < facts.size:
                raw = file.readline(facts.size - at)
                if not raw:
                    break
                self.bytes_read += len(raw)
                whole = raw.endswith(b"\n")
                entry, reason = _parsed(raw)
                if not whole and entry is None:
                    self.torn = len(raw)
                    break
                if reason:
                    self.problems.append(Problem(at, reason))
                if entry is not None:
                    yield Line(entry, at, len(raw))
                at += len(raw)
                first = first if len(first) >= _EDGE_BYTES else first + raw
                last = raw if len(raw) >= _EDGE_BYTES else (last + raw)[-_EDGE_BYTES:]
            if self.start == 0:
                self.place = Place(facts, at, _short(first[:_EDGE_BYTES]), _short(last[-_EDGE_BYTES:]))
            else:
                self.place = Place(facts, at, *self._edges(file, at))

    def refuse(self, line: Line, reason: str) -> None:
        """Note that a line is JSON and no entry."""
        self.problems.append(Problem(line.offset, reason))

    def _edges(self, file: IO[bytes], offset: int) -> tuple[str, str]:
        head, tail, count = _edges_of(file, offset)
        self.bytes_read += count
        return head, tail


def begin(path: Path, known: Place | None) -> Reading:
    """Begin to read a transcript: behind the known place if the file only grew since, else from the beginning."""
    if known is None:
        return Reading(path, fresh=True, place=None, problems=[])
    with path.open("rb") as file:
        facts = facts_of(os.fstat(file.fileno()))
        grew = facts.inode == known.facts.inode and facts.size > known.facts.size
        count = 0
        if grew:
            *edges, count = _edges_of(file, known.offset)
            grew = edges == [known.head, known.tail]
    reading = Reading(path, fresh=not grew, place=None, problems=[], start=known.offset if grew else 0)
    reading.bytes_read = count
    return reading


def _edges_of(file: IO[bytes], offset: int) -> tuple[str, str, int]:
    length = min(_EDGE_BYTES, offset)
    file.seek(0)
    head = file.read(length)
    file.seek(offset - length)
    tail = file.read(length)
    return _short(head), _short(tail), len(head) + len(tail)


def _short(data: bytes) -> str:
    return blake2b(data, digest_size=8).hexdigest()


def _parsed(raw: bytes) -> tuple[dict[str, Any] | None, str]:
    """The entry in a line, and what is wrong with the line; of a line that follows a torn one, the whole part."""
    if not raw.strip():
        return None, ""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        at, rest = _glued(raw)
        if rest is not None:
            return rest, f"{at:,} bytes of a torn line before the next"
        return None, f"not JSON: {error}" if raw.endswith(b"\n") else ""
    if not isinstance(found, dict):
        return None, f"not an object but {type(found).__name__}"
    return found, ""


def _glued(raw: bytes) -> tuple[int, dict[str, Any] | None]:
    """The entry behind a torn one: a writer that died within a line begins its next one right there."""
    at = 0
    for _ in range(_STARTS):
        at = raw.find(_START, at + 1)
        if at < 0:
            break
        try:
            found = json.loads(raw[at:])
        except (ValueError, RecursionError):
            continue
        # Parts of a message have a type too.
        if found["type"] in ENTRY_TYPES and "id" in found:
            return at, found
    return 0, None
