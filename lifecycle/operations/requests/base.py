"""What every request is, and the words that they share."""

from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
SecondsMap = tuple[str, int | None]
# Who holds the lease that a write is made under, and its epoch.
Fence = tuple[str, int]


class DuplicateKey(Exception):
    """A driver's word for a broken unique constraint; operations turn it into what it means."""


class Refused(DuplicateKey):
    """That the request at this place of a `Together` was refused, so that none of them was met."""

    def __init__(self, place: int) -> None:
        super().__init__(f"request {place}")
        self.place = place


@dataclass(slots=True)
class Request:
    """Anything an operation yields."""


@dataclass(slots=True)
class OfSession(Request):
    """A request about one session."""

    tenant: str
    session_id: str
