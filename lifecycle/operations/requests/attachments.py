"""Requests about what is attached to sessions: approvals and connections."""

from dataclasses import dataclass

from lifecycle.operations.requests.base import Fence, OfSession, Request, Row


@dataclass(slots=True)
class RequestApproval(OfSession):
    """Insert a pending approval, suspending the session if asked: the row, or None if refused."""

    values: Row
    expires_in: int | None
    suspend: bool
    fence: Fence | None = None


@dataclass(slots=True)
class ResolveApproval(OfSession):
    """Decide a pending approval, resuming what it suspended: the row (its `state` tells), or None if there is none."""

    approval_id: str
    state: str
    by: str | None
    note: str | None


@dataclass(slots=True)
class ListApprovals(Request):
    """Read approvals, oldest first: rows."""

    tenant: str | None
    session_id: str | None
    state: str | None
    limit: int


@dataclass(slots=True)
class OpenConnection(OfSession):
    """Register a connection of a live session: its row, or None if refused."""

    connection_id: str
    client: str | None


@dataclass(slots=True)
class BeatConnection(OfSession):
    """A sign of life of a connection and its session: whether it is there."""

    connection_id: str


@dataclass(slots=True)
class CloseConnection(OfSession):
    """Remove a connection: whether it was there."""

    connection_id: str


@dataclass(slots=True)
class ListConnections(Request):
    """Read connections: rows."""

    tenant: str | None
    session_id: str | None
