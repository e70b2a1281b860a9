"""A session that the database does not have yet, read from disk and ready to be made."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final

from lifecycle.directories import layout
from lifecycle.directories.entries import Namer, NeedsBeginning, Row
from lifecycle.directories.feed import batches, note
from lifecycle.directories.layout import Agent, database_id
from lifecycle.directories.records import Record, metadata
from lifecycle.directories.transcripts import Place, Reading, begin
from lifecycle.directories.view import DiskSession, ordered, path_of
from lifecycle.settings.limits import LimitsSettings

ACTOR: Final = "directory sync"
# Not what its kind says: it lives for as long as it is on disk.
_IDLE: Final = "never"
_ABOVE_SESSIONS: Final = 2


@dataclass
class Draft:
    """What a new session will be. `second` and `rest` are what does not go into one call with the first messages."""

    agent: Agent
    disk: DiskSession
    name: str
    record: Record
    readings: dict[str, Reading]
    first: list[Row]
    second: list[Row] | None
    rest: Iterator[list[Row]]
    parent: str | None

    @property
    def size(self) -> int:
        """The bytes of transcripts that were read for it."""
        return sum(reading.bytes_read for reading in self.readings.values())


def draft(
    root: Path,
    agent: Agent,
    disk: DiskSession,
    limits: LimitsSettings,
    *,
    life: int = 1,
    parent: str | None = None,
    places: dict[str, Place] | None = None,
) -> Draft:
    """Read a session from disk: from its beginning, or behind the places that an earlier life of it came to."""
    try:
        return _draft(root, agent, disk, limits, life, parent, places or {})
    except NeedsBeginning:
        return _draft(root, agent, disk, limits, life, parent, {})


def _draft(
    root: Path,
    agent: Agent,
    disk: DiskSession,
    limits: LimitsSettings,
    life: int,
    parent: str | None,
    places: dict[str, Place],
) -> Draft:
    record = Record(str(root), agent.agent_id, disk.session_id, life, disk.keys, disk.digest)
    readings = {file: begin(path_of(agent, file), places.get(file)) for file in ordered(disk)}
    rest = batches(readings, Namer(), record, limits)
    first, second = next(rest, []), next(rest, None)
    # If it all fits into one call, the record can say beforehand what will be true after it.
    if second is None:
        note(readings, record, len(first))
    name = database_id(agent.agent_id, disk.session_id, life)
    return Draft(agent, disk, name, record, readings, first, second, rest, parent)


def creation(new: Draft, limits: LimitsSettings) -> tuple[dict[str, Any], list[str]]:
    """What `create_session` is called with, and which fields its metadata had no room for."""
    known, left_out = metadata(new.record, new.disk, {}, limits.metadata_bytes)
    values: dict[str, Any] = {
        "session_id": new.name,
        "kind": new.disk.kind,
        "agent_id": new.agent.agent_id,
        "parent_id": new.parent or parent_of(new.agent, new.record.header),
        "title": title_of(new.disk.entries, limits),
        "metadata": known,
        "idle_timeout": _IDLE,
        "actor": ACTOR,
    }
    if not new.first:
        # A saved state, so that a session without messages is no ghost: it is on disk.
        values["context"] = {}
    return values, left_out


def title_of(entries: Any, limits: LimitsSettings) -> str | None:
    """The label or display name in a session's entries, shortened like other titles."""
    for entry in entries.values() if isinstance(entries, dict) else ():
        for field in ("label", "displayName"):
            value = entry.get(field) if isinstance(entry, dict) else None
            if isinstance(value, str) and (line := " ".join(value.replace("\x00", "").split())):
                line = line.encode("utf-8", "replace").decode()
                bound = limits.title_chars
                return line if len(line) <= bound else line[: bound - 1].rstrip() + "…"
    return None


def parent_of(agent: Agent, header: dict[str, Any] | None) -> str | None:
    """The id of the session that a header names as its parent: by its id, or by its transcript's path."""
    value = header.get("parentSession") if header else None
    if not isinstance(value, str) or not value or not value.isprintable():
        return None
    path = PurePath(value)
    if path.suffix != ".jsonl":
        return database_id(agent.agent_id, value) if "/" not in value else None
    below = path.parts[-2:-1] == ("sessions",) and len(path.parts) > _ABOVE_SESSIONS
    return database_id(path.parts[-3] if below else agent.agent_id, layout.session_of(path.name))
