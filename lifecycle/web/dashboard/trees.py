"""JSON documents to look at: as a tree that folds, and as the differences of two. Both are bounded."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_NODES: Final = 2000
_DIFFERENCES: Final = 300
_TEXT: Final = 2000
_OPEN_DEPTH: Final = 2


@dataclass(slots=True)
class Node:
    """A value of a document: a leaf with its text, or a branch with what it holds."""

    name: str | None
    kind: str
    text: str
    children: "list[Node]" = field(default_factory=list)
    open: bool = False
    hidden: int = 0


class _Budget:
    """How many nodes may still be shown."""

    def __init__(self, left: int) -> None:
        self.left = left


def tree(value: Any, name: str | None = None) -> Node:
    """A document as a tree of at most 2,000 nodes; a branch says how many of its own it leaves out."""
    return _node(value, name, 0, _Budget(_NODES))


def _node(value: Any, name: str | None, depth: int, budget: _Budget) -> Node:
    budget.left -= 1
    if isinstance(value, dict | list):
        pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
        kind, unit = ("object", "key") if isinstance(value, dict) else ("list", "item")
        count = len(pairs)
        node = Node(name, kind, f"{count} {unit}{'' if count == 1 else 's'}", open=depth < _OPEN_DEPTH and count > 0)
        for key, child in pairs:
            if budget.left <= 0:
                node.hidden = count - len(node.children)
                break
            node.children.append(_node(child, str(key), depth + 1, budget))
        return node
    return Node(name, _kind(value), _shown(value))


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "text"
        case dict():
            return "object"
        case _:
            return "list"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= _TEXT:
        return text
    return f"{text[:_TEXT]}… ({len(text) - _TEXT:,} more characters)"


@dataclass(frozen=True, slots=True)
class Difference:
    """A place in which two documents differ: what was there and what is, None for nothing."""

    path: str
    change: str
    before: str | None
    after: str | None


def differences(before: Any, after: Any) -> tuple[Sequence[Difference], bool]:
    """The places in which two documents differ, in order, at most 300; and whether there are more."""
    found: list[Difference] = []
    for one in _compared(before, after, ""):
        if len(found) == _DIFFERENCES:
            return found, True
        found.append(one)
    return found, False


_MISSING: Final = object()


def _compared(before: Any, after: Any, path: str) -> Iterator[Difference]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys((*before, *after)):
            below = f"{path}.{key}" if path else str(key)
            yield from _compared(before.get(key, _MISSING), after.get(key, _MISSING), below)
    elif isinstance(before, list) and isinstance(after, list):
        for i in range(max(len(before), len(after))):
            one, other = (side[i] if i < len(side) else _MISSING for side in (before, after))
            yield from _compared(one, other, f"{path}[{i}]")
    elif before is _MISSING:
        yield Difference(path, "added", None, _shown(after))
    elif after is _MISSING:
        yield Difference(path, "removed", _shown(before), None)
    elif _kind(before) != _kind(after) or before != after:
        yield Difference(path or "the document", "changed", _shown(before), _shown(after))
