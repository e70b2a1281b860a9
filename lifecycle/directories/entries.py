"""From an entry of a transcript to a message of the database.

Every entry but the header becomes one message: its role is that of a `message`, else the entry's type; whatever is not
role or content stands in the message's metadata, so that both together are the whole entry.
"""

import json
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final

from lifecycle.directories.transcripts import Line

# Where the content of an entry stands. An entry of any other type is content as a whole.
_CONTENT: Final = {
    "custom_message": "content",
    "custom": "data",
    "compaction": "summary",
    "branch_summary": "summary",
}
_LONGEST_ROLE: Final = 255
_LONGEST_ID: Final = 200

Row = dict[str, Any]


class Malformed(ValueError):
    """An entry that is none; says what it lacks."""


class NeedsBeginning(Exception):
    """An entry without an id: how it is called depends on those before it, so the file is read from its beginning."""


class Namer:
    """Gives messages their ids, and passes over those that are there already.

    The id is the entry's. One that is taken by a message that says something else (a rewritten transcript) gets a
    digest of what it says behind it, and both stay. An entry without an id is called by a digest of its line and by
    how many like it came before it in its file.
    """

    def __init__(self, known: dict[str, str] | None = None) -> None:
        self._said = {} if known is None else known
        self._alike: dict[tuple[str, str], int] = {}
        self.repeated = 0

    def new(self, row: Row, entry: dict[str, Any], file: str, *, fresh: bool) -> Row | None:
        """The message with its id, or None for one that is there. Raises `NeedsBeginning` unless the reading is `fresh`."""
        name, says = self._name(entry, file, fresh=fresh), digest(row["role"], row["content"])
        if self._said.get(name, says) != says:
            name = f"{name}~{says}"
        if name in self._said:
            self.repeated += 1
            return None
        self._said[name] = says
        return row | {"message_id": name}

    def _name(self, entry: dict[str, Any], file: str, *, fresh: bool) -> str:
        own = entry.get("id")
        if isinstance(own, str) and 0 < len(own) <= _LONGEST_ID and own.isprintable():
            return own
        if not fresh:
            raise NeedsBeginning
        line = _short(json.dumps(entry))
        count = self._alike[file, line] = self._alike.get((file, line), 0) + 1
        return f"line:{line}" if count == 1 else f"line:{line}:{count}"


def message_of(line: Line) -> Row:
    """The message that an entry is, without an id. Raises `Malformed`."""
    entry = line.entry
    kind = entry.get("type")
    if not _is_name(kind):
        raise Malformed(f"no type, but {str(kind)[:40]!r}" if "type" in entry else "no type")
    if kind == "message":
        return _spoken(entry)
    field = _CONTENT.get(str(kind))
    rest = {name: value for name, value in entry.items() if name not in {"id", field}}
    if field is None:
        return {"role": kind, "content": {name: rest.pop(name) for name in list(rest) if name not in _FRAME},
                "metadata": rest}  # fmt: skip
    return {"role": kind, "content": entry.get(field, ""), "metadata": rest}


_FRAME: Final = ("type", "parentId", "timestamp")


def _spoken(entry: dict[str, Any]) -> Row:
    said = entry.get("message")
    if not isinstance(said, dict):
        raise Malformed("a message without its message object")
    role = said.get("role")
    if not _is_name(role):
        raise Malformed("a message without a role")
    rest = {name: value for name, value in entry.items() if name not in {"id", "message"}}
    more = {name: value for name, value in said.items() if name not in {"role", "content"}}
    return {
        "role": role,
        "content": said.get("content", ""),
        "metadata": rest | {"message": more} if more else rest,
    }


def in_pieces(row: Row, chars: int) -> Iterator[Row]:
    """A message that cannot be stored as it is (too long, too much metadata, no Unicode): its JSON text, in pieces.

    Joined and parsed they are `{"role", "content", "metadata"}`. Nothing is cut and nothing replaced.
    """
    text = json.dumps({name: row[name] for name in ("role", "content", "metadata")})
    count = -(-len(text) // chars)
    for i in range(count):
        name = row["message_id"] if i == 0 else f"{row['message_id']}/{i + 1}"
        piece = text[i * chars : (i + 1) * chars]
        yield {
            "message_id": name,
            "role": row["role"],
            "content": piece,
            "metadata": {"piece": i + 1, "pieces": count, "says": digest(row["role"], row["content"])},
        }


def digest(role: str, content: Any) -> str:
    """What tells messages that say something else apart."""
    return _short(json.dumps([role, content]))


def _short(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_ROLE and value.isprintable()
