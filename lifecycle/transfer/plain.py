"""Lines of rows that are plainly right, read by a function written out for each table: a third of the time.

What is not plainly right is read column by column (`rows.decode`), which says what is wrong with it, if anything is.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from lifecycle.models import tables as t
from lifecycle.transfer.rows import (
    _FIELDS,
    _FIRST_YEAR,
    _KEY_CHARS,
    _NAMES,
    Row,
    _check_whole,
    _Field,
    _id,
    _short,
    _text,
    _time,
)

# What can hold a character that cannot be stored; all others come as they are, in UTF-8.
_ESCAPE: Final = b"\\u"
# The tables of which one column says something about another.
_WHOLE: Final = (t.sessions.name, t.messages.name, t.graph_checkpoints.name)
_NOT_PLAIN: Final = (ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError)
# `json.loads` looks for blanks around a value; a line of ours has none.
_scan: Any = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def read_plain(line: bytes) -> tuple[str, Row] | None:
    """The table and the row of a line, as `decode_line` and `decode` give them; None where they are to be asked."""
    if _ESCAPE in line:
        return None
    try:
        text = line.decode()
        value, end = _scan(text, 0)
        ((name, inner),) = value.items()
        row = _READERS[name](inner)
        if name in _WHOLE:
            _check_whole(name, row)
    except _NOT_PLAIN:
        return None
    return (name, row) if text[end:] == "\n" and inner.keys() <= _NAMES[name] else None


# How a value is looked at where it is not the column's reader that does: a condition that it must not meet.
_WRONG: Final[Mapping[Any, str]] = {
    _text: "{0}.__class__ is not str",
    _short: f"{{0}}.__class__ is not str or len({{0}}) > {_KEY_CHARS}",
    _id: f"{{0}}.__class__ is not str or not 0 < len({{0}}) <= {_KEY_CHARS}",
    _time: f"({{0}} := fromisoformat({{0}})).tzinfo is not UTC or {{0}}.year < {_FIRST_YEAR}",
}


def _written(fields: tuple[_Field, ...]) -> Callable[[Any], Row]:
    known: dict[str, Any] = {"UTC": UTC, "fromisoformat": datetime.fromisoformat}
    lines = ["def read(value):", " get = value.get"]
    for i, (name, read, required) in enumerate(fields):
        given = f"v{i}"
        lines.append(f" {given} = {f'value[{name!r}]' if required else f'get({name!r})'}")
        if read in _WRONG:
            look = f"if {_WRONG[read].format(given)}: raise ValueError"
        else:
            known[f"read_{i}"] = read
            look = f"{given} = read_{i}({given})"
        lines += [f" {look}"] if required else [f" if {given} is not None:", f"  {look}"]
    lines.append(f" return {{{', '.join(f'{field.name!r}: v{i}' for i, field in enumerate(fields))}}}")
    exec("\n".join(lines), known)  # noqa: S102 - our own names
    written: Callable[[Any], Row] = known["read"]
    return written


_READERS: Final = {name: _written(fields) for name, fields in _FIELDS.items()}
