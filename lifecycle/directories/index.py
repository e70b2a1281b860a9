"""`sessions.json`: read in one pass, and changed by cutting members out of its text.

What stays is not parsed and written again but copied, so every byte of it survives: unknown fields, number formats,
escapes. Members come from the C scanner one by one, which takes as long as `json.loads` of the whole.
"""

import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple

from lifecycle.directories.layout import BrokenIndex, Facts, facts_of

_blank: Final = re.compile(r"[ \t\n\r]*").match
_scan: Final[Any] = json.JSONDecoder().scan_once  # type: ignore[attr-defined] # known to be there; documents.py too
_ATTEMPTS: Final = 5


class Member(NamedTuple):
    """A key with its entry, and where both stand in the text."""

    key: str
    entry: Any
    start: int
    end: int


@dataclass(frozen=True)
class Index:
    """One version of a `sessions.json`; `facts` are None where there is no file."""

    facts: Facts | None
    text: str
    members: list[Member]

    @cached_property
    def sessions(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Session id to its entries by key. Of a key that stands there twice, the last counts, as for any reader."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for key, member in self._by_key.items():
            session_id = session_in(member.entry)
            if session_id is not None:
                found.setdefault(session_id, {})[key] = member.entry
        return found

    @cached_property
    def malformed(self) -> list[str]:
        """The keys whose entries name no session."""
        return [key for key, member in self._by_key.items() if session_in(member.entry) is None]

    @cached_property
    def _by_key(self) -> dict[str, Member]:
        return {member.key: member for member in self.members}

    def digest(self, session_id: str) -> str:
        """What changes when any of a session's entries does."""
        said = blake2b(digest_size=12)
        for key in self.sessions.get(session_id, ()):
            _, _, start, end = self._by_key[key]
            said.update(self.text[start:end].encode("utf-8", "surrogateescape"))
        return said.hexdigest()

    def without(self, keys: set[str]) -> bytes:
        """The file's content without these keys, all else as it was."""
        kept: list[str] = []
        end = first = self.members[0].start if self.members else len(self.text)
        for member in self.members:
            if member.key not in keys:
                # With what stood before it: the comma and the indentation.
                kept.append(self.text[end if kept else member.start : member.end])
            end = member.end
        return (self.text[:first] + "".join(kept) + self.text[end:]).encode("utf-8", "surrogateescape")


def session_in(entry: Any) -> str | None:
    """The session id that an entry names, if it is one that a file can be named for."""
    value = entry.get("sessionId") if isinstance(entry, dict) else None
    return value if isinstance(value, str) and value and "/" not in value and "\x00" not in value else None


def read_index(path: Path) -> Index:
    """Read a `sessions.json`; no members where there is none. Raises `BrokenIndex`.

    A version that is being written over in place is read again.
    """
    for attempt in range(_ATTEMPTS):
        try:
            with path.open("rb") as file:
                facts = facts_of(os.fstat(file.fileno()))
                data = file.read()
                steady = facts_of(os.fstat(file.fileno())) == facts
        except FileNotFoundError:
            return Index(None, "{}", [])
        except OSError as error:
            raise BrokenIndex(f"{path} cannot be read: {error.strerror}") from error
        text = data.decode("utf-8", "surrogateescape")
        try:
            return Index(facts, text, parse(text))
        except ValueError as error:
            if steady or attempt == _ATTEMPTS - 1:
                raise BrokenIndex(f"{path} is no JSON object: {error}") from error
    raise AssertionError("unreachable")


def parse(text: str) -> list[Member]:
    """The members of the JSON object in a text, in order. Raises ValueError, which says where it is none."""
    at = _skip(text, 1 if text.startswith("\ufeff") else 0)
    if text[at : at + 1] != "{":
        raise _expected("an object", at)
    members: list[Member] = []
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        return _ended(text, at, members)
    while True:
        start = at
        if text[at : at + 1] != '"':
            raise _expected("a key in quotes", at)
        key, at = _value(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise _expected("a colon", at)
        entry, at = _value(text, _skip(text, at + 1))
        members.append(Member(key, entry, start, at))
        at = _skip(text, at)
        if text[at : at + 1] == "}":
            return _ended(text, at, members)
        if text[at : at + 1] != ",":
            raise _expected("a comma or the closing brace", at)
        at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    match = _blank(text, at)
    return match.end() if match else at


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        return _scan(text, at)  # type: ignore[no-any-return]
    except StopIteration as stopped:
        raise _expected("a value", stopped.value) from None
    except RecursionError:
        raise ValueError(f"nested too deep at character {at:,}") from None


def _ended(text: str, at: int, members: list[Member]) -> list[Member]:
    if (end := _skip(text, at + 1)) != len(text):
        raise _expected("the end", end)
    return members


def _expected(what: str, at: int) -> ValueError:
    return ValueError(f"expected {what} at character {at:,}")
