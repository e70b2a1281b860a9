"""Requests about sessions and their states."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lifecycle.entries import Entries
from lifecycle.operations.requests.base import Fence, OfSession, Request, Row, SecondsMap
from lifecycle.operations.requests.messages import AddMessages
from lifecycle.pieces import Document


@dataclass(slots=True)
class CreateSession(OfSession):
    """Insert the session, its audit row, and its saved state if documents are given: the row, or None if it exists."""

    values: Row
    documents: Mapping[str, Document]
    conversation: Entries | None
    max_age: int | None
    idle: int | None
    ghosts: int | None
    actor: str | None

    @property
    def saved(self) -> bool:
        """Whether it has a saved state from the beginning."""
        return bool(self.documents) or self.conversation is not None


@dataclass(slots=True)
class CreateSessions(Request):
    """Create sessions, each with its first messages, in one transaction: which were made; those that exist stay."""

    items: tuple[tuple[CreateSession, AddMessages | None], ...]


@dataclass(slots=True)
class GetSession(OfSession):
    """Read one session: its row or None."""

    deleted: bool = False


@dataclass(slots=True)
class SaveState(OfSession):
    """Save documents and fields of an active session that nobody else holds: the new version, or None if refused.

    `conversation` replaces what is stored: where it is more than that with something behind it, the save may be refused
    and is to be repeated as `SaveEdited`.
    """

    documents: Mapping[str, Document]
    conversation: Entries | None
    append: Entries | None
    fields: Mapping[str, Any]
    expected: int | None
    token: str | None
    digest: str | None
    fence: Fence | None = None


@dataclass(slots=True)
class SaveEdited(SaveState):
    """As SaveState, for a conversation of which any part was changed: entries that nothing needs any more are removed."""


@dataclass(slots=True)
class GetToken(OfSession):
    """Read a retry token: (digest, version) or None."""

    token: str


@dataclass(slots=True)
class LoadState(OfSession):
    """Read the saved state: its row or None."""

    any_state: bool


@dataclass(slots=True)
class Move(OfSession):
    """Move the session by a trigger if it is in one of the sources: the new row, or None if refused."""

    trigger: str
    reason: str | None
    actor: str | None
    retention: SecondsMap
    max_age: SecondsMap
    expected: int | None = None
    fence: Fence | None = None


@dataclass(slots=True)
class Touch(Request):
    """Mark live sessions as active now: the ids that were. With `passing`, what others have locked is passed over."""

    tenant: str
    session_ids: tuple[str, ...]
    passing: bool = False


@dataclass(slots=True)
class UpdateSession(OfSession):
    """Set columns: the new row, or None if refused."""

    values: Row
    expected: int | None
    # Whether to reckon the deadline anew, after a change of an idle limit.
    restamp: bool


@dataclass(slots=True)
class DeleteSessions(Request):
    """Remove sessions by key with all they own, leaving an audit row each: the number removed.

    `descendants` takes the children of the children too.
    """

    keys: tuple[tuple[str, str], ...]
    actor: str | None
    reason: str | None
    force: bool
    descendants: bool = False
    end_first: bool = False
    # Where they are written first; None removes them for good.
    archive: Any = None


@dataclass(slots=True)
class SoftDelete(OfSession):
    """Hide a session, or show it again: the row or None."""

    hide: bool
    actor: str | None
    retention: Mapping[str, SecondsMap]
    force: bool = False


@dataclass(slots=True)
class ListSessions(Request):
    """Read a page: ([row], total or None). One row more than `limit` tells that there is another page."""

    tenant: str | None
    filters: Mapping[str, Any]
    sort: str
    descending: bool
    limit: int
    offset: int
    cursor: tuple[Any, ...] | None
    count: bool
    where: Any = None


@dataclass(slots=True)
class GetHistory(OfSession):
    """Read the audit log of a session in order: rows."""

    limit: int


@dataclass(slots=True)
class RecentTransitions(Request):
    """Read the newest lines of the audit log, of one session (with its tenant) or of all, newest first: rows."""

    tenant: str | None
    session_id: str | None
    limit: int


@dataclass(slots=True)
class ListStuck(Request):
    """Read the sessions that are stuck for one reason, the longest first: rows."""

    tenant: str | None
    why: str
    silent_for: int
    limit: int


@dataclass(slots=True)
class GetStats(Request):
    """Read totals: a mapping."""

    tenant: str | None
