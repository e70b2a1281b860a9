"""A large document cut into pieces, so that a save stores what changed of it and checkpoints share the rest.

The text is cut between the members of its objects and the elements of its lists, at places that depend on what stands
there (content-defined chunking, as in Muthitacharoen, Chen and Mazières, "A Low-bandwidth Network File System", SOSP
2001): a change moves no boundary but its own. What is left between large pieces stays in the document's row.
"""

import json
import zlib
from typing import Any, Final, NamedTuple

from lifecycle.documents import text_of
from lifecycle.entries import digest

WHOLE: Final = 4096
"""Documents of fewer characters are kept in one piece."""
_LEAST: Final = 2048
_MOST: Final = 8192
_MASK: Final = 3
# What is cut is encoded again at each level: so many times the document in all, however deep it is nested.
_TIMES: Final = 4


class Document(NamedTuple):
    """A document as it is stored: its text, or else the list of its pieces with the large ones by their names."""

    text: str | None
    pieces: str | None = None
    values: tuple[tuple[str, str], ...] = ()
    """The large pieces: (name, text), each once. A name is the document's first letter and the digest of the text."""

    @classmethod
    def of(cls, name: str, value: Any, text: str) -> "Document":
        """The document called so with this JSON text."""
        if len(text) < WHOLE:
            return cls(text)
        cutter = _Cutter(name[0], len(text) * _TIMES)
        cutter.cut(value, text)
        pieces, values = cutter.finish()
        return cls(None, pieces, values) if values else cls(text)


def names_in(pieces: str | None) -> list[str]:
    """The names in a stored list of pieces: each second one."""
    return [] if pieces is None else json.loads(pieces)[1::2]


def joined(pieces: str, values: dict[str, str]) -> str | None:
    """The text of a document; None where one of its pieces is missing."""
    parts: list[str] = json.loads(pieces)
    try:
        parts[1::2] = [values[name] for name in parts[1::2]]
    except KeyError:
        return None
    return "".join(parts)


class _Cutter:
    def __init__(self, initial: str, room: int) -> None:
        self._room = room
        self._initial = initial
        self._parts: list[str] = []
        self._values: dict[str, str] = {}
        self._buffer: list[str] = []
        self._size = 0

    def cut(self, value: Any, text: str) -> None:
        """Add a value of some size."""
        if isinstance(value, dict) and value:
            opening = "{"
            for name, child in value.items():
                self._add(f"{opening}{text_of(name)}:")
                self._child(child)
                opening = ","
            self._add("}")
        elif isinstance(value, list) and value:
            opening = "["
            for child in value:
                self._add(opening)
                self._child(child)
                opening = ","
            self._add("]")
        else:
            self._keep(text)

    def finish(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """The list of the pieces, and the large ones."""
        self._parts.append("".join(self._buffer))
        return text_of(self._parts), tuple(self._values.items())

    def _child(self, value: Any) -> None:
        text = text_of(value)
        if len(text) >= _LEAST:
            self._room -= len(text)
            if self._room > 0:
                self.cut(value, text)
            else:
                self._keep(text)
            return
        self._add(text)
        if self._size >= _MOST or (self._size >= _LEAST and not zlib.crc32(text.encode()) & _MASK):
            text = "".join(self._buffer)
            self._buffer.clear()
            self._keep(text)

    def _add(self, text: str) -> None:
        self._buffer.append(text)
        self._size += len(text)

    def _keep(self, text: str) -> None:
        name = self._initial + digest(text)
        self._parts += ["".join(self._buffer), name]
        self._values[name] = text
        self._buffer.clear()
        self._size = 0
