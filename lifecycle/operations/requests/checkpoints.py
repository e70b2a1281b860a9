"""Requests about checkpoints and forks."""

from dataclasses import dataclass
from typing import Any

from lifecycle.operations.requests.base import Fence, OfSession


@dataclass(slots=True)
class MakeCheckpoint(OfSession):
    """Copy the saved state under a label, removing what the policy does not keep: the row, or None if refused."""

    label: str
    data: str | None
    policies: Any
    fence: Fence | None = None


@dataclass(slots=True)
class ListCheckpoints(OfSession):
    """Read the checkpoints' rows without their documents, oldest first."""


@dataclass(slots=True)
class GetCheckpoint(OfSession):
    """Read one checkpoint with its documents: its row or None."""

    seq: int


@dataclass(slots=True)
class RestoreCheckpoint(OfSession):
    """Make a checkpoint the saved state of an active session: the new version, None if refused, 0 for no such one."""

    seq: int
    fence: Fence | None = None


@dataclass(slots=True)
class ForkSession(OfSession):
    """Create a session from another's state: the row, None if the id is taken, 0 for no such source."""

    new_id: str
    checkpoint: int | None
    actor: str | None
    policies: Any
