"""Requests about the log of transitions, as it is watched."""

from dataclasses import dataclass

from lifecycle.operations.places import Place
from lifecycle.operations.requests.base import Request


@dataclass(slots=True)
class StartWatch(Request):
    """The place behind all that is committed, or the given one if it can be one of this database's.

    None while there is more to prepare: ask again.
    """

    after: Place | None


@dataclass(slots=True)
class ReadTransitions(Request):
    """Read the audit log in the order of commits: (rows, position and id of the last line looked at or None, more).

    At most `limit` lines are looked at; those of others are left out.
    """

    tenant: str | None
    after: Place
    limit: int
    session_id: str | None
