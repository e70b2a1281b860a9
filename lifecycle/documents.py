"""JSON documents as text: what is accepted comes back equal, what would not is refused with its path.

Documents are stored as text, not as PostgreSQL's jsonb: jsonb turns 1e22 into an integer and -0.0 into 0.0,
reorders keys and refuses U+0000.
"""

import json
import math
from typing import Any

from lifecycle.errors import LimitExceeded, NotSerializable

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
# `decode` of a decoder looks for blanks around the value; what `encode` wrote has none.
_scan: Any = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_SCALARS = (str, int, float, bool, type(None))


def encode(value: Any, name: str, *, limit: int, depth: int = 200, key: str = "limits.document_bytes") -> str:
    """The JSON text of `value`, which `decode` gives back equal.

    `name` begins the path in an error; `limit` is in bytes of UTF-8; `depth` bounds the nesting.
    Raises `NotSerializable` with the path to what JSON cannot hold, `LimitExceeded` when it is too large.
    """
    try:
        text = _encode(value)
        size = len(text) if text.isascii() else len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        _refuse(value, name, depth)
        raise NotSerializable(name, str(error)) from error
    if size > limit:
        raise LimitExceeded(name, size, limit, "bytes", key)
    if not _plain(value, depth):
        _refuse(value, name, depth)
    return text


def text_of(value: Any) -> str:
    """The JSON text of what `encode` let pass."""
    return _encode(value)


def decode(text: str | None) -> Any:
    """The value behind a stored document; None for none."""
    if text is None:
        return None
    if text == "{}":
        return {}
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        end = -1
        value = None
    # Somebody else may have written it.
    return value if end == len(text) else json.loads(text)


def _plain(value: Any, depth: int) -> bool:
    """Whether everything that the encoder let pass also comes back equal: no tuples, only text as keys."""
    level = [value]
    while level:
        if depth < 0:
            return False
        depth -= 1
        below: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                for name in node:
                    if not isinstance(name, str):
                        return False
                below.extend(child for child in node.values() if type(child) not in _SCALARS)
            elif isinstance(node, list):
                below.extend(child for child in node if type(child) not in _SCALARS)
            elif not isinstance(node, _SCALARS):
                return False
        level = below
    return True


def _refuse(value: Any, path: str, depth: int) -> None:
    """Raise for the first value that is not JSON; return when there is none."""
    stack: list[tuple[Any, str, int]] = [(value, path, depth)]
    while stack:
        node, where, left = stack.pop()
        problem = _problem(node)
        if problem:
            raise NotSerializable(where, problem)
        if isinstance(node, (dict, list)) and left < 0:
            raise NotSerializable(where, f"nested more than {depth} levels deep, or within itself")
        if isinstance(node, dict):
            for name in node:
                if not isinstance(name, str):
                    raise NotSerializable(where, f"the key {name!r} is {type(name).__name__}; keys must be text")
                key_problem = _problem(name)
                if key_problem:
                    raise NotSerializable(where, f"the key {name!r}: {key_problem}")
            stack.extend((child, f"{where}.{name}", left - 1) for name, child in reversed(node.items()))
        elif isinstance(node, list):
            stack.extend((child, f"{where}[{i}]", left - 1) for i, child in reversed(list(enumerate(node))))


def _problem(node: Any) -> str | None:
    if isinstance(node, str):
        return surrogate_problem(node)
    if isinstance(node, float):
        return None if math.isfinite(node) else f"{node} is not a JSON number"
    if isinstance(node, tuple):
        return "a tuple would come back as a list; pass a list"
    if isinstance(node, int) and not isinstance(node, bool):
        try:
            str(node)
        except ValueError:
            return "an integer of more than 4,300 digits"
    if isinstance(node, (*_SCALARS, dict, list)):
        return None
    return f"{type(node).__name__} is not JSON: use objects, lists, text, numbers, booleans or null"


def surrogate_problem(value: str) -> str | None:
    """What is wrong with a text that UTF-8 cannot hold, or None."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return f"a lone surrogate (U+{ord(value[error.start]):04X}) at index {error.start} is not Unicode text"
    return None
