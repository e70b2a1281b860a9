"""Requests about counts, as they are and as they were sampled."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from lifecycle.operations.requests.base import Request


@dataclass(slots=True)
class ReadSampled(Request):
    """Read when sessions were last counted and how long that took: (time or None, seconds, now)."""

    tenant: str | None


@dataclass(slots=True)
class ReadSchema(Request):
    """Read the revision of the tables: its name or None."""


@dataclass(slots=True)
class CountSessions(Request):
    """Count sessions of a tenant or of each: {tenant: {name: number}}. What is due is counted up to `limit`."""

    tenant: str | None
    limit: int


@dataclass(slots=True)
class StoreSamples(Request):
    """Keep what was counted, in place of what was before in the same ten minutes: when.

    `seconds` is how long the counting took.
    """

    tenant: str | None
    numbers: Mapping[str, Mapping[str, float]]
    totals: Mapping[str, float]
    seconds: float


@dataclass(slots=True)
class CountTransitions(Request):
    """Count the next committed lines of the audit log, `limit` at most, by hour: (number, whether there are more).

    The log is one for all tenants, and so is the place up to which it is counted.
    """

    limit: int


@dataclass(slots=True)
class ReadSamples(Request):
    """Read samples: (last sampled at or None, transitions counted since or None, now, rows, {trigger: number} so far).

    Those from `since` on, or those of the last look.
    """

    tenant: str | None
    names: tuple[str, ...]
    since: datetime | None
