"""What a session in the database knows of its files: under `directory` and `entries` in its metadata.

It is written in one transaction with nothing else, so it names the number of messages that it is true of. Where the
session has another number, a reading was cut short (or somebody changed the messages), and the files are read anew.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Final

from lifecycle.directories.transcripts import Place
from lifecycle.directories.view import DiskSession
from lifecycle.models.reads import Session

_ROOM: Final = 1024
"""Bytes of metadata that are left to others."""


@dataclass
class Record:
    """How far a session's files are in the database."""

    root: str
    agent_id: str
    session_id: str
    life: int = 1
    keys: list[str] = field(default_factory=list)
    digest: str = ""
    messages: int = -1
    places: dict[str, Place] = field(default_factory=dict)
    malformed: int = 0
    header: dict[str, Any] | None = None
    state: str = "active"
    count: int = 0

    @property
    def trusted(self) -> bool:
        """Whether the database holds what the record says."""
        return self.messages == self.count

    def unchanged(self, disk: DiskSession) -> bool:
        """Whether the session is on disk as it was when the record was written."""
        return (
            self.trusted
            and self.digest == disk.digest
            and self.keys == disk.keys
            and self.places.keys() == disk.files.keys()
            and all(place.facts == disk.files[name] for name, place in self.places.items())
        )

    def as_json(self) -> dict[str, Any]:
        """The record as metadata."""
        return {
            "root": self.root,
            "agent": self.agent_id,
            "session": self.session_id,
            "life": self.life,
            "keys": self.keys,
            "digest": self.digest,
            "messages": self.messages,
            "files": {name: place.as_json() for name, place in self.places.items()},
            "malformed": self.malformed,
            "header": self.header,
        }


def record_in(session: Session) -> Record | None:
    """The record of a session that came from a directory; None for any other."""
    found: Any = session.metadata.get("directory")
    match found:
        case {"root": str(root), "agent": str(agent), "session": str(session_id)}:
            pass
        case _:
            return None
    files = found.get("files") if isinstance(found.get("files"), dict) else {}
    places = {name: place for name, value in files.items() if (place := Place.from_json(value)) is not None}
    return Record(
        root=root,
        agent_id=agent,
        session_id=session_id,
        life=_number(found.get("life"), 1),
        keys=_list(found.get("keys")),
        digest=str(found.get("digest") or ""),
        messages=_number(found.get("messages"), -1),
        places=places,
        malformed=_number(found.get("malformed"), 0),
        header=found.get("header"),
        state=session.state,
        count=session.message_count,
    )


def metadata(
    record: Record, disk: DiskSession | None, before: dict[str, Any], limit: int
) -> tuple[dict[str, Any], list[str]]:
    """The session's metadata with the record and the entries, and the fields that had no room.

    What others keep in the metadata stays. The largest fields go first until it fits; their names and sizes are kept.
    """
    entries: dict[str, dict[str, Any]]
    entries = before.get("entries", {}) if disk is None else {key: dict(entry) for key, entry in disk.entries.items()}
    if disk is not None and disk.orphan:
        entries = before.get("entries", {})
    others = {name: value for name, value in before.items() if name not in {"directory", "entries"}}
    found = others | {"directory": record.as_json(), "entries": entries}
    if _size(found) <= limit - _ROOM:
        return found, []
    left_out: dict[str, int] = {}
    sizes = sorted(
        ((_size(value), key, name) for key, entry in entries.items() for name, value in entry.items()), reverse=True
    )
    over = _size(found) - (limit - _ROOM)
    for size, key, name in sizes:
        if over <= 0:
            break
        left_out[f"{key} {name}"] = size
        entries = entries | {key: {other: value for other, value in entries[key].items() if other != name}}
        over -= size - len(key) - len(name)
    found["entries"] = entries
    found["directory"]["left_out"] = left_out
    return found, [f"{name} ({size:,} bytes)" for name, size in left_out.items()]


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))


def _number(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _list(value: Any) -> list[Any]:
    """A list as it is, and none for whatever somebody else put there."""
    return list(value) if isinstance(value, list) else []
