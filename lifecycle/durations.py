"""Durations as people write them (`30d`, `1d12h`, `never`) and as the code keeps them: whole seconds, or None for never."""

import re
from datetime import timedelta

MAX_SECONDS = 2**31 - 1
"""The longest duration, about 68 years: it fits a 32-bit column on every database."""

_UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_WRITTEN = re.compile("".join(f"(?:([0-9]{{1,10}}){unit})?" for unit in _UNITS))
_BARE = re.compile(r"[0-9]{1,10}")
_ALLOWED = (
    "a duration such as 45s, 60m, 24h, 30d, 2w or 1d12h (w, d, h, m, s; larger units first), "
    f"a whole number of seconds from 1 to {MAX_SECONDS}, or never"
)


def parse_duration(value: str | int | float | timedelta) -> int | None:  # noqa: PYI041 -- says what is taken
    """Return the duration in whole seconds (1 to `MAX_SECONDS`), or None for `never`.

    A bare number, also as text, is seconds. Raises ValueError, whose text says what is allowed,
    for anything else: zero, negative and fractional seconds too, since none is rounded.
    """
    if isinstance(value, str) and value.strip().lower() == "never":
        return None
    seconds = _count(value)
    # The bounds first: they refuse what no float holds, and NaN.
    if not 1 <= seconds <= MAX_SECONDS or seconds != int(seconds):
        raise _refusal(value)
    return int(seconds)


def format_duration(seconds: int | None) -> str:
    """Return the text `parse_duration` reads as `seconds`: `never` for None, days the largest unit (`1d12h`).

    Raises ValueError for what is no duration (less than 1 second, more than `MAX_SECONDS`).
    """
    if seconds is None:
        return "never"
    if not 1 <= seconds <= MAX_SECONDS:
        raise _refusal(seconds)
    parts = []
    rest = seconds
    for unit in "dhms":
        count, rest = divmod(rest, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def _count(value: object) -> float:
    if isinstance(value, str):
        text = value.strip().lower()
        if _BARE.fullmatch(text):
            return int(text)
        if written := _WRITTEN.fullmatch(text):
            return sum(int(count or 0) * size for count, size in zip(written.groups(), _UNITS.values(), strict=True))
    if isinstance(value, timedelta):
        return value.total_seconds()
    # A bool is an int to Python, but `yes` and `no` in YAML are bools and no durations.
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise _refusal(value)


def _refusal(value: object) -> ValueError:
    return ValueError(f"must be {_ALLOWED}; not {value!r}")
