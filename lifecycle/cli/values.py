"""Values as they are written on a command line."""

import difflib
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from lifecycle.durations import parse_duration
from lifecycle.errors import InvalidArgument


def parse_object(text: str | None, name: str) -> dict[str, Any] | None:
    """The JSON object in a parameter."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        near = repr(text[error.pos : error.pos + 20]) if error.pos < len(text) else "the end"
        where = f"line {error.lineno} column {error.colno}, at {near}"
        raise InvalidArgument(f"{name} must be a JSON object such as '{{\"a\": 1}}': {error.msg} ({where})") from error
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{name} must be a JSON object: {error}") from error
    if not isinstance(value, dict):
        raise InvalidArgument(f"{name} must be a JSON object such as '{{\"a\": 1}}', not {text[:40]!r}")
    return value


def parse_time(text: str, name: str, also: str = "") -> datetime:
    """A time in ISO 8601 with its zone; `also` says what else the parameter takes."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        example = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        raise InvalidArgument(f"{name} must be a time such as {example}{also}; not {text!r}") from None
    if time.tzinfo is None:
        zoned = f"{time.isoformat()}Z for UTC or {time.isoformat()}+02:00"
        raise InvalidArgument(f"{name}: {text!r} has no time zone; write {zoned}")
    return time


def parse_when(text: str | None, name: str) -> datetime | None:
    """A time, or how long ago it was: `2h`."""
    if text is None:
        return None
    try:
        ago = parse_duration(text)
    except ValueError:
        ago = None
    if ago is None:
        return parse_time(text, name, ", or 2h for two hours ago")
    try:
        return datetime.now(UTC) - timedelta(seconds=ago)
    except OverflowError:
        raise InvalidArgument(f"{name}: {text!r} is too long ago") from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean a or b? ` if some are close, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=3)
    return f"did you mean {' or '.join(near)}? " if near else ""
