"""A value of a graph's state as it is stored: large texts once for the thread, lists by what was added.

What the user's serializer made of a value is cut into parts and put together again byte by byte, so it comes back as it
was. Msgpack is looked into; of whatever else (encrypted, pickled) the whole is one part.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lifecycle.adapters.langgraph.msgpack import LARGE, NotMsgpack, elements, large_parts, list_head
from lifecycle.adapters.langgraph.texts import content_of, packed, size_of, text_of
from lifecycle.entries import Run, arrange, digest_of
from lifecycle.graphs import line_needing, needed, needs_text, numbered, said

Typed = tuple[str, bytes]
Part = bytes | str
"""Bytes as they are, or the name of a stored value."""

_MSGPACK: Final = "msgpack"
# What is longer in a checkpoint's row is a row of its own, which the checkpoints behind it share.
_INLINE: Final = 160
_PARTS: Final = 16
# Elements of a list are stored together until they are so many bytes.
_GROUP: Final = 192
_LIST: Final = 512
# Above all numbers of items, so that new ones are told from those that are stored.
_NEW: Final = 1 << 61


@dataclass(slots=True)
class Storing:
    """What one call stores: values by name, and the lines of new items in order."""

    values: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    items: list[str] = field(default_factory=list)
    # Whether it relies on what another checkpoint has.
    shares: bool = False

    def rows(self) -> tuple[tuple[str, str | None, str], ...]:
        """The values as a request takes them."""
        return tuple((name, needs, content) for name, (needs, content) in self.values.items())


@dataclass(slots=True)
class Whole:
    """A value in parts."""

    kind: str
    parts: tuple[Part, ...]

    def names(self) -> list[str]:
        """The stored values that it needs."""
        return [part for part in self.parts if isinstance(part, str)]

    def form(self, index: Mapping[str, int]) -> list[Any]:
        """As it stands in a row that lists its names."""
        return [self.kind, *(index[part] if isinstance(part, str) else part for part in self.parts)]


@dataclass(slots=True)
class Listed:
    """A list of which all but the last elements are items."""

    kind: str
    count: int
    runs: list[Run]
    digests: list[str]
    rest: tuple[Part, ...]

    def names(self) -> list[str]:
        """The stored values that it needs, those of its items aside."""
        return [part for part in self.rest if isinstance(part, str)]

    def form(self, index: Mapping[str, int]) -> list[Any]:
        """As it stands in a row that lists its names; new items are counted from the first of them."""
        head = {"n": self.count, "r": [number for run in relative(self.runs) for number in run]}
        return [self.kind, head, *(index[part] if isinstance(part, str) else part for part in self.rest)]

    def placed(self, first: int) -> "Listed":
        """The same, once its new items have numbers from `first` on."""
        moved = [
            (start - _NEW + first, end - _NEW + first) if start >= _NEW else (start, end) for start, end in self.runs
        ]
        return Listed(self.kind, self.count, _joined_runs(moved), self.digests, self.rest)


Stored = Whole | Listed


def relative(runs: Iterable[Run]) -> list[Run]:
    """Runs with those of new items counted from the first of them, as negative numbers."""
    return [(_NEW - 1 - start, _NEW - 1 - end) if start >= _NEW else (start, end) for start, end in runs]


def _joined_runs(runs: Iterable[Run]) -> list[Run]:
    """Runs in their order, those that follow each other as one."""
    joined: list[Run] = []
    for start, end in runs:
        if joined and joined[-1][1] == start - 1:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def store(typed: Typed, into: Storing, *, listed: bool = False, before: Stored | None = None) -> Stored:
    """Cut up a value. One that is `listed` is a list, whose elements may be those that were `before`."""
    kind, data = typed[0], bytes(typed[1])
    if listed and kind == _MSGPACK and len(data) >= _LIST and (spans := elements(data)) is not None:
        groups, start = _groups(data, spans)
        if groups:
            return _store_list(kind, data, len(spans), groups, start, into, before)
    parts = _cut(kind, data, into)
    if size_of([part for part in parts if isinstance(part, bytes)]) > _INLINE or len(parts) > _PARTS:
        name = digest_of(kind.encode() + b":" + data)
        names, content = _skeleton(parts)
        into.values[name] = needs_text((), names), content
        parts = (name,)
    return Whole(kind, parts)


def _store_list(
    kind: str,
    data: bytes,
    count: int,
    groups: Sequence[bytes],
    rest: int,
    into: Storing,
    before: Stored | None,
) -> Listed:
    digests = list(map(digest_of, groups))
    known = dict(zip(_numbers(before.runs), before.digests, strict=True)) if isinstance(before, Listed) else {}
    runs, new = arrange(digests, known, _NEW + len(into.items))
    for index in new:
        parts = _cut(kind, groups[index], into)
        into.items.append(line_needing(*_skeleton(parts)))
    into.shares = into.shares or len(new) < len(groups)
    return Listed(kind, count, runs, digests, _cut(kind, data[rest:], into) if rest < len(data) else ())


def _numbers(runs: Iterable[Run]) -> Iterable[int]:
    return (number for first, last in runs for number in range(first, last + 1))


def _groups(data: bytes, spans: Sequence[tuple[int, int]]) -> tuple[list[bytes], int]:
    """The elements, small ones together, and where those begin that are left."""
    groups: list[bytes] = []
    start = spans[0][0] if spans else len(data)
    for _, end in spans:
        if end - start >= _GROUP:
            groups.append(data[start:end])
            start = end
    return groups, start


def _cut(kind: str, data: bytes, into: Storing) -> tuple[Part, ...]:
    """The bytes with the large parts of them as names."""
    try:
        spans = large_parts(data) if kind == _MSGPACK else [(0, len(data))]
    except NotMsgpack:
        spans = [(0, len(data))]
    parts: list[Part] = []
    at = 0
    for start, end in spans:
        if end - start < LARGE:
            continue
        large = data[start:end]
        name = digest_of(large)
        into.values[name] = (None, text_of(large))
        if at < start:
            parts.append(data[at:start])
        parts.append(name)
        at = end
    if at < len(data):
        parts.append(data[at:])
    return tuple(parts)


def _skeleton(parts: Sequence[Part]) -> tuple[list[str], str]:
    """The names that parts need, and the text of the parts with these as indexes."""
    names = list(dict.fromkeys(part for part in parts if isinstance(part, str)))
    index = {name: i for i, name in enumerate(names)}
    return names, packed([index[part] if isinstance(part, str) else part for part in parts])


class Found:
    """Stored values put together: of the items and the values that were read with a checkpoint."""

    def __init__(self, items: Mapping[int, str], values: Mapping[str, Mapping[str, Any]]) -> None:
        self._items = items
        self._values = values
        self._known: dict[str, bytes] = {}

    def stored(self, form: Sequence[Any], names: Sequence[str], first: int | None) -> Stored:
        """A value as it stands in a row that lists these names, and whose first item has this number."""
        kind, *rest = form
        head = rest.pop(0) if rest and isinstance(rest[0], dict) else None
        parts = tuple(names[part] if isinstance(part, int) else bytes(part) for part in rest)
        if head is None:
            return Whole(kind, parts)
        numbers = head["r"]
        runs = _joined_runs(numbered(zip(numbers[::2], numbers[1::2], strict=True), first))
        return Listed(kind, head["n"], runs, [digest_of(self._item(number)) for number in _numbers(runs)], parts)

    def typed(self, stored: Stored) -> Typed:
        """What the serializer made of it."""
        if isinstance(stored, Whole):
            return stored.kind, self._joined(stored.parts)
        items = b"".join(map(self._item, _numbers(stored.runs)))
        return stored.kind, list_head(stored.count) + items + self._joined(stored.rest)

    def _joined(self, parts: Iterable[Part]) -> bytes:
        return b"".join(self._value(part) if isinstance(part, str) else part for part in parts)

    def _value(self, name: str) -> bytes:
        known = self._known.get(name)
        if known is None:
            row = self._values[name]
            known = self._known[name] = self._content(needed(row["needs"])[1], row["content"])
        return known

    def _item(self, number: int) -> bytes:
        return self._content(*said(self._items[number]))

    def _content(self, names: Sequence[str], text: str) -> bytes:
        content = content_of(text)
        if isinstance(content, bytes):
            return content
        return self._joined(names[part] if isinstance(part, int) else part for part in content)
