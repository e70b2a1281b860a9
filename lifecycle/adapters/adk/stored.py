"""Where a session object stands: which of the stored events it has seen, and how that is told from the stored ones."""

import secrets
from typing import Any, NamedTuple, Self

from google.adk.sessions import Session
from pydantic import PrivateAttr

from lifecycle.models.reads import SavedState


def new_phase() -> str:
    """A phase that no session has had."""
    return secrets.token_hex(8)


class Place(NamedTuple):
    """Which session it is, how many events it had, and its version then.

    `born`, the session's phase, tells it from one that had its id before, and `number`, its step, events from each other;
    both stand in each event's metadata too. The version changes with every event, and with what is none: a title, say.
    """

    born: str
    number: int
    version: int

    @classmethod
    def first(cls) -> Self:
        """That of a session yet to be created."""
        return cls(new_phase(), 0, 1)

    @classmethod
    def of(cls, saved: SavedState) -> Self:
        """That of a stored session."""
        return cls(saved.phase or "", saved.step or 0, saved.version)

    @property
    def next(self) -> "Place":
        """That behind one more event."""
        return Place(self.born, self.number + 1, self.version + 1)

    @property
    def stamp(self) -> dict[str, Any]:
        """What the metadata of the event that leads here say of it."""
        return {"born": self.born, "number": self.number}


class StoredSession(Session):  # type: ignore[misc]  # ADK is not followed where types are checked
    """A session as it was read. One that lost its place on the way (as JSON, say) is known by its last event."""

    _place: Place | None = PrivateAttr(default=None)

    @classmethod
    def at(cls, place: Place, **values: Any) -> Self:
        """One that stands there."""
        session = cls(**values)
        session._place = place
        return session


def place_of(session: Session) -> Place | None:
    """Where an object stands, if it knows."""
    return session._place if isinstance(session, StoredSession) else None  # noqa: SLF001 -- of this module


def put(session: Session, place: Place, updated_at: float) -> None:
    """Have the object stand there."""
    session.last_update_time = updated_at
    if isinstance(session, StoredSession):
        session._place = place  # noqa: SLF001 -- of this module
