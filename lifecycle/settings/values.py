"""The forms that single values take: durations, counts."""

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PlainSerializer

from lifecycle.durations import format_duration, parse_duration

MOST: Final = 2**31 - 1


def seconds(value: Any) -> int:
    """A duration in seconds."""
    found = seconds_or_never(value)
    if found is None:
        raise ValueError("never is not allowed here; must be a duration such as 45s, 60m or 24h")
    return found


def seconds_or_never(value: Any) -> int | None:
    """A duration in seconds, None for never."""
    if value is None:
        raise ValueError("must be a duration such as 24h or 30d, or never; it is left empty")
    return parse_duration(value)


def _count_or_all(value: Any) -> int | None:
    if isinstance(value, str):
        text = value.strip().lower()
        if text == "all":
            return None
        value = int(text) if re.fullmatch("[0-9]{1,10}", text) else value
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
        raise ValueError(f"must be a whole number from 1 to {MOST}, or all; not {value!r}")
    return value


def no_bool(value: Any) -> Any:
    """Refuse what pydantic would take for 0 or 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number; not yes or no")  # noqa: TRY004 -- pydantic reads ValueError
    return value


def lower(value: Any) -> Any:
    """Text in lower case; whatever else unchanged."""
    return value.lower() if isinstance(value, str) else value


def empty_mapping(value: Any) -> Any:
    """A mapping left empty."""
    return {} if value is None else value


Seconds = Annotated[int, BeforeValidator(seconds), PlainSerializer(format_duration)]
SecondsOrNever = Annotated[int | None, BeforeValidator(seconds_or_never), PlainSerializer(format_duration)]
Count = Annotated[int, BeforeValidator(no_bool), Field(ge=1, le=MOST)]
CountOrAll = Annotated[
    int | None, BeforeValidator(_count_or_all), PlainSerializer(lambda count: "all" if count is None else count)
]
