"""Durations: what can be written, what it means in seconds, and what is refused."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.durations import MAX_SECONDS, format_duration, parse_duration


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("45s", 45),
        ("60m", 3_600),
        ("24h", 86_400),
        ("30d", 2_592_000),
        ("2w", 1_209_600),
        ("1d12h", 129_600),
        ("1w2d3h4m5s", 788_645),
        (" 30D ", 2_592_000),
        ("90", 90),
        (90, 90),
        (90.0, 90),
        (timedelta(minutes=1, seconds=30), 90),
        (MAX_SECONDS, MAX_SECONDS),
    ],
)
def test_a_written_duration_is_its_seconds(written: str | float | timedelta, seconds: int) -> None:
    """Units add up, a bare number is seconds, and a timedelta is taken as it is."""
    actual = parse_duration(written)
    assert actual == seconds
    assert type(actual) is int


@pytest.mark.parametrize("written", ["never", "Never", " never "])
def test_never_is_none(written: str) -> None:
    """`never` is None, in any case."""
    assert parse_duration(written) is None


@pytest.mark.parametrize(
    "bad",
    [
        *("", " ", "0", "0s", "0d0h", "-5", "-5s", "1.5h", "5x", "m", "12h1d", "1h1h", "1 h", "forever", "None", "٣s"),
        *(0, -1, 1.5, float("nan"), float("inf"), True, False, MAX_SECONDS + 1, "99999999999999999999d"),
        *(timedelta(0), timedelta(seconds=-1), timedelta(milliseconds=1500), None, [], {}),
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(bad: Any) -> None:
    """Zero, fractions, disorder, overflow and other types are a ValueError that shows the forms and quotes the value."""
    with pytest.raises(ValueError, match="1d12h") as refused:
        parse_duration(bad)
    assert str(refused.value).endswith(f"not {bad!r}")
    assert "never" in str(refused.value)


@given(st.none() | st.integers(1, MAX_SECONDS))
def test_what_is_formatted_parses_back(seconds: int | None) -> None:
    """`parse_duration(format_duration(x)) == x` for every duration there is."""
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.text(alphabet="0123456789wdhms. -ne", max_size=12))
def test_text_is_a_duration_or_a_value_error(text: str) -> None:
    """No text gives anything but None, seconds within the bounds, or ValueError."""
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert seconds is None or 1 <= seconds <= MAX_SECONDS


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(None, "never"), (1, "1s"), (3_600, "1h"), (2_592_000, "30d"), (129_600, "1d12h"), (5_400, "1h30m")],
)
def test_formatting_uses_the_largest_units_up_to_days(seconds: int | None, written: str) -> None:
    """30 days read `30d`, not `4w2d`."""
    assert format_duration(seconds) == written


@pytest.mark.parametrize("seconds", [0, -1, MAX_SECONDS + 1])
def test_what_is_no_duration_is_not_formatted(seconds: int) -> None:
    """Formatting refuses what parsing would refuse."""
    with pytest.raises(ValueError, match="must be a duration"):
        format_duration(seconds)
