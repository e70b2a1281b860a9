"""Deadlines: rounded up, never early, bounded by the oldest age."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from lifecycle import deadlines

TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds are naive


@given(TIMES, st.integers(1, 10**8))
def test_a_session_gets_its_idle_time_and_a_twentieth_at_most(now: datetime, idle: int) -> None:
    """It expires after its idle limit, at most a twentieth of it later."""
    until = deadlines.expiry(now, idle, None)
    assert until is not None
    assert timedelta(0) <= until - now - timedelta(seconds=idle) <= timedelta(seconds=idle / 20, microseconds=1)


@given(TIMES, st.integers(20, 10**6))
def test_touches_within_a_twentieth_mostly_write_the_same_deadline(now: datetime, idle: int) -> None:
    """Twenty touches over one grid step give two deadlines at most."""
    step = idle / 20
    given_deadlines = {deadlines.expiry(now + timedelta(seconds=step * i / 20), idle, None) for i in range(20)}
    assert len(given_deadlines) <= 2


def test_never_and_the_oldest_age() -> None:
    """No idle limit leaves the oldest age; the earlier of both counts; neither is never."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    oldest = now + timedelta(hours=1)
    assert deadlines.expiry(now, None, oldest) == oldest
    assert deadlines.expiry(now, 10**6, oldest) == oldest
    assert deadlines.expiry(now, None, None) is None
    assert deadlines.later(now, None) is None
