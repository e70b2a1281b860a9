"""When a session expires and when it is pruned, reckoned from its row and its kind's policy."""

import math
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def round_up(time: datetime, grid: float) -> datetime:
    """The next multiple of `grid` seconds since the epoch: repeated touches within it write the same value.

    On PostgreSQL that keeps an update heap-only, as the indexed deadline does not change.
    """
    return EPOCH + timedelta(microseconds=math.ceil((time - EPOCH) / timedelta(seconds=grid)) * round(grid * 1_000_000))


def expiry(now: datetime, idle: int | None, max_age_at: datetime | None) -> datetime | None:
    """When a session that was active at `now` expires: after `idle` seconds, rounded up by a twentieth of it."""
    if idle is None:
        return max_age_at
    idle_at = round_up(now + timedelta(seconds=idle), idle / 20)
    return idle_at if max_age_at is None else min(idle_at, max_age_at)


def later(now: datetime, seconds: int | None) -> datetime | None:
    """`now` and so many seconds; None for never."""
    return None if seconds is None else now + timedelta(seconds=seconds)


def minute(time: datetime) -> datetime:
    """The minute a time lies in: what lists are indexed on."""
    return time.replace(second=0, microsecond=0)
