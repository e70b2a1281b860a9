"""Requests about messages."""

from dataclasses import dataclass
from datetime import datetime

from lifecycle.operations.requests.base import Fence, OfSession, Row


@dataclass(slots=True)
class AddMessages(OfSession):
    """Append messages to a live session: [(seq, created_at)], or None if refused. Raises DuplicateKey for a taken id."""

    messages: tuple[Row, ...]
    auto_title: tuple[str, str] | None
    fence: Fence | None = None


@dataclass(slots=True)
class AddMissingMessages(OfSession):
    """As AddMessages, for a retry: ids that are there already are left out: the rows of all of them, or None if refused.

    Raises MessageExists, adding none, when one of those says something else.
    """

    messages: tuple[Row, ...]
    fence: Fence | None = None


@dataclass(slots=True)
class GetMessages(OfSession):
    """Read messages in order of seq: rows."""

    limit: int
    offset: int
    since: datetime | None
    after: int | None
    before: int | None


@dataclass(slots=True)
class RemoveMessage(OfSession):
    """Remove one message, the last one where no id is given: its row or None."""

    message_id: str | None
    fence: Fence | None = None


@dataclass(slots=True)
class ClearMessages(OfSession):
    """Remove all messages: how many there were, or None if refused."""

    fence: Fence | None = None
