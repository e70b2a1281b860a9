"""Requests about what is due, and what is done about it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lifecycle.operations.requests.base import Request, Row, SecondsMap


@dataclass(slots=True)
class Due(Request):
    """Which rows a sweep is about. The same predicate serves the dry run and the write."""

    tenant: str | None
    sweep: str
    kind: str | None = None
    states: tuple[str, ...] = ()
    seconds: int | None = None
    where: Any = None


@dataclass(slots=True)
class CountDue(Request):
    """Count what is due: (count, oldest deadline, now)."""

    due: Due


@dataclass(slots=True)
class OldestDue(Request):
    """Read the oldest deadline that is due: (deadline or None, now)."""

    due: Due


class SweptIds(list[str]):
    """The ids that a sweep acted on; `keys` says whose they are, `last` is the latest deadline among those looked at."""

    __slots__ = ("keys", "last")

    def __init__(self, keys: list[tuple[str, str]], last: datetime | None = None) -> None:
        super().__init__(session_id for _, session_id in keys)
        self.keys = keys
        self.last = last

    @classmethod
    def of(cls, rows: list[Row], last: datetime | None = None) -> "SweptIds":
        """Those of rows with a session's key."""
        return cls([(row["tenant"], row["session_id"]) for row in rows], last)


@dataclass(slots=True)
class SweepBatch(Request):
    """Act on at most `limit` due rows in one transaction: the ids acted on, as `SweptIds`."""

    due: Due
    limit: int
    reason: str | None
    actor: str | None
    retention: SecondsMap = ("{}", None)
    # Where what is removed is written first; None removes it for good.
    archive: Any = None
    # The deadline to begin at: what the batches before left behind in the index is not looked through again.
    since: datetime | None = None


@dataclass(slots=True)
class EraseArchived(Request):
    """Erase a user's sessions from the archive: the number of sessions."""

    archive: Any
    tenant: str
    user_id: str


@dataclass(slots=True)
class Trim(Request):
    """Remove what housekeeping keeps for a while only (tombstones, retry tokens, samples): the number removed."""

    tenant: str | None
    table: str
    older_than: int
    limit: int


@dataclass(slots=True)
class Restamp(Request):
    """Stamp the deadlines of one kind's sessions anew, after `after` in key order: (the last key or None, number)."""

    tenant: str | None
    policies: Any
    after: tuple[str, str]
    limit: int
    dry_run: bool
