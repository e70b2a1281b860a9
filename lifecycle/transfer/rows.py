"""A row of a table as a line of JSON and back: `{"session_messages":{"tenant":"","session_id":"a","seq":2,...}}`.

What is NULL is left out. Times are ISO 8601 in UTC. Documents are the text that is stored, in quotes: written as JSON
within JSON, 1e22 and the order of keys would depend on who reads it.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from lifecycle import states
from lifecycle.documents import surrogate_problem
from lifecycle.graphs import items_of
from lifecycle.models import tables as t
from lifecycle.models.types import Base64, Timestamp

Row = dict[str, Any]
Key = tuple[str, str]

# What belongs to sessions, the audit log included, in the order in which a session's lines stand.
TABLES: Final[Mapping[str, sa.Table]] = {table.name: table for table in (t.sessions, *t.CHILDREN, t.transitions)}

_KEY_CHARS: Final = 255
_FIRST_YEAR: Final = 1000  # MariaDB knows none before
_DOCUMENTS: Final = {
    t.sessions.name: ("metadata", "config", "entries_before"),
    t.session_states.name: ("context", "context_pieces", "plan", "plan_pieces"),
    t.entries.name: ("content",),
    t.checkpoints.name: ("data", "entries_before", "context", "context_pieces", "plan", "plan_pieces"),
    t.messages.name: ("metadata",),
    t.approvals.name: ("details",),
    t.connections.name: ("client",),
    t.graph_checkpoints.name: ("needs",),
    t.graph_values.name: ("needs",),
}
_ONE_OF: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    (t.sessions.name, "state"): states.STATES,
    (t.transitions.name, "from_state"): states.STATES,
    (t.transitions.name, "to_state"): states.STATES,
    (t.approvals.name, "state"): ("pending", "approved", "rejected", "expired"),
    (t.messages.name, "encoding"): ("text", "json"),
}
# As `lifecycle.graphs.numbered_lines` makes them; the number is read as one by the database.
_ITEMS: Final = re.compile(r"(?:[1-9][0-9]{0,17} [A-Za-z0-9+/,]* [A-Za-z0-9+/=]+\n)+")
_LEAST: Final = {
    (t.sessions.name, "version"): 1,
    (t.sessions.name, "next_seq"): 1,
    (t.sessions.name, "message_count"): 0,
    (t.sessions.name, "next_entry"): 1,
    (t.sessions.name, "entries_from"): 1,
    (t.sessions.name, "checkpoint_version"): 0,
    (t.sessions.name, "checkpoint_entry"): 1,
    (t.checkpoints.name, "next_entry"): 1,
    (t.checkpoints.name, "entries_from"): 1,
    (t.entries.name, "number"): 1,
    (t.graph_checkpoints.name, "first_item"): 1,
    (t.graph_checkpoints.name, "last_item"): 1,
    (t.transitions.name, "id"): 1,
}
# The number of a transaction means something in the database that gave it only.
_LEFT_OUT: Final = {(t.transitions.name, "txid")}


class BadRow(ValueError):
    """A line is not a row of its table; `field` is what is wrong with it, if it is one column's value."""

    def __init__(self, field: str | None, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field
        self.problem = problem


class _Field(NamedTuple):
    name: str
    read: Callable[[Any], Any]
    required: bool


def columns(table: sa.Table) -> list[sa.Column[Any]]:
    """The columns of a table that a line holds."""
    return [column for column in table.c if (table.name, column.name) not in _LEFT_OUT]


def order(table: sa.Table) -> list[sa.Column[Any]]:
    """The columns that a table's lines are sorted by: its session's key, then what tells its rows apart."""
    own = [column for column in table.primary_key if column.name not in ("tenant", "session_id")]
    return [table.c.tenant, table.c.session_id, *own]


def key(row: Mapping[str, Any]) -> Key:
    """The key of the session that a row belongs to."""
    return row["tenant"], row["session_id"]


def encode(name: str, row: Mapping[str, Any]) -> bytes:
    """The line of a row of the table called `name`, its end included."""
    return encode_line({name: {column: value for column, value in row.items() if value is not None}})


def encode_line(value: Mapping[str, Any]) -> bytes:
    """A line of JSON, its end included."""
    return _encode(value).encode() + b"\n"


def decode_line(line: bytes) -> tuple[str, Any]:
    """The one name that a line holds, and its value. Raises `BadRow`."""
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise BadRow(None, f"is not UTF-8: byte {error.start} is 0x{line[error.start]:02X}") from None
    except (ValueError, RecursionError) as error:
        raise BadRow(None, f"is not JSON: {error}") from None
    if not isinstance(value, dict) or len(value) != 1:
        raise BadRow(None, 'must be an object of one name, such as {"sessions":{...}}')
    ((name, inner),) = value.items()
    return name, inner


def decode(name: str, value: Any) -> Row:
    """The row of the table called `name` that a line holds, every column checked. Raises `BadRow`."""
    fields = _FIELDS[name]
    if not isinstance(value, dict):
        raise BadRow(None, f"{name} must be an object with a value for each column")
    row: Row = {}
    for column, read, required in fields:
        given = value.get(column)
        if given is not None:
            try:
                row[column] = read(given)
            except ValueError as error:
                raise BadRow(f"{name}.{column}", str(error)) from None
        elif required:
            raise BadRow(f"{name}.{column}", "is missing")
        else:
            row[column] = None
    if not value.keys() <= _NAMES[name]:
        unknown = min(value.keys() - _NAMES[name])
        raise BadRow(f"{name}.{unknown}", f"there is no such column; there are {', '.join(f.name for f in fields)}")
    _check_whole(name, row)
    return row


def _check_whole(name: str, row: Row) -> None:
    """What one column says about another."""
    if name == t.sessions.name and (row["state"] in states.TERMINAL) != (row["ended_at"] is not None):
        problem = "must be there, as the session is" if row["ended_at"] is None else "must be left out, as it is"
        raise BadRow(f"{name}.ended_at", f"{problem} {row['state']}")
    if name == t.messages.name and row["encoding"] == "json":
        try:
            _document(row["content"])
        except ValueError as error:
            raise BadRow(f"{name}.content", str(error)) from None
    if name == t.graph_checkpoints.name and row["new_items"] is not None:
        last = max(items_of(row["new_items"]))
        if row["last_item"] is None or row["last_item"] < last:
            raise BadRow(f"{name}.last_item", f"must be at least {last}, the number of the last item that is here")


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


_parse = json.JSONDecoder(parse_constant=_no_constant).decode


def _time_text(value: Any) -> str:
    time: datetime = value
    return time.isoformat()


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_time_text).encode


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"must be text, not {_shown(value)}")
    if not value.isascii() and (problem := surrogate_problem(value)):
        raise ValueError(problem)
    if "\x00" in value:
        raise ValueError("the character U+0000 cannot be stored in a text")
    return value


def _short(value: Any) -> str:
    text = _text(value)
    if len(text) > _KEY_CHARS:
        raise ValueError(f"must be of at most {_KEY_CHARS} characters, not {len(text)}")
    return text


def _id(value: Any) -> str:
    text = _short(value)
    if not text:
        raise ValueError("must not be empty")
    return text


def _document(value: Any) -> str:
    text = _text(value)
    if text in {"{}", "[]"}:
        return text
    try:
        _parse(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"must be the text of a JSON document: {error}") from None
    return text


def _bytes(value: Any) -> str:
    text = _text(value)
    try:
        base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError(f"must be bytes in base 64: {error}") from None
    return text


def _items(value: Any) -> str:
    text = _text(value)
    if not _ITEMS.fullmatch(text):
        raise ValueError(f"must be lines of a number, names and a content, with a space between, not {_shown(value)}")
    return text


def _one_of(allowed: tuple[str, ...]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}, not {_shown(value)}")
        return str(value)

    return read


def _integer(least: int, most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}, not {_shown(value)}")
        return value

    return read


def _flag(value: Any) -> bool:
    if value is not True and value is not False:
        raise ValueError(f"must be true or false, not {_shown(value)}")
    return value


def _time(value: Any) -> datetime:
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is not UTC:
            time = time.astimezone(UTC) if time.tzinfo is not None else time.replace(tzinfo=None)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"must be a time such as 2026-11-21T07:00:00+00:00, not {_shown(value)}") from None
    if time.tzinfo is None or time.year < _FIRST_YEAR:
        raise ValueError(f"must be a time with its zone, of the year {_FIRST_YEAR} or later; not {_shown(value)}")
    return time


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + " …"  # noqa: PLR2004 -- enough to know it again


def _reader(table: sa.Table, column: sa.Column[Any]) -> Callable[[Any], Any]:
    place = table.name, column.name
    match column.type:
        case Timestamp():
            return _time
        case Base64():
            return _bytes
        case sa.Boolean():
            return _flag
        case sa.Integer() as kind:
            bits = 63 if isinstance(kind, sa.BigInteger) else 31
            return _integer(_LEAST.get(place, -(2**bits)), 2**bits - 1)
    return _text_reader(place, column)


def _text_reader(place: tuple[str, str], column: sa.Column[Any]) -> Callable[[Any], Any]:
    if place in _ONE_OF:
        return _one_of(_ONE_OF[place])
    if column is t.graph_checkpoints.c.new_items:
        return _items
    if column.name in _DOCUMENTS.get(place[0], ()):
        return _document
    if column.name == "session_id":
        return _id
    # On MariaDB the short texts have a length.
    stored: Any = column.type.dialect_impl(_mysql)
    return _short if stored.length == _KEY_CHARS else _text


_mysql = sa.dialects.mysql.dialect()
_FIELDS: Final[Mapping[str, tuple[_Field, ...]]] = {
    name: tuple(_Field(column.name, _reader(table, column), required=not column.nullable) for column in columns(table))
    for name, table in TABLES.items()
}
_NAMES: Final = {name: frozenset(field.name for field in fields) for name, fields in _FIELDS.items()}
