"""Google ADK's `DatabaseSessionService`, used as its runner uses it.

A turn reads a session with `get_session` and appends events to that object, whose changes of state the service stores.
"""

import asyncio
from typing import Any, ClassVar

from google.adk.errors import StaleSessionError
from google.adk.events import Event, EventActions
from google.adk.sessions import DatabaseSessionService
from sqlalchemy.exc import DBAPIError

from benchmarks.races.store import START, Standing, Store

_OWNER = {"app_name": "races", "user_id": "ada"}


class Adk(Store):
    """A session for each session, its list under a key of the session's state."""

    refusals: ClassVar[tuple[type[Exception], ...]] = (StaleSessionError, DBAPIError)

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._service = DatabaseSessionService(url.replace("postgresql://", "postgresql+asyncpg://", 1))
        self._known: dict[str, Any] = {}

    def setup(self) -> None:
        """Create the service's tables, which its first call does."""
        self._runner.run(self._service.list_sessions(app_name=_OWNER["app_name"]))

    def create(self, session: str) -> None:
        """Create it, with its first state."""
        self._runner.run(self._service.create_session(**_OWNER, session_id=session, state={"entries": [START]}))

    def read(self, session: str) -> None:
        """Get the session, and keep the object."""
        self._known[session] = self._get(session)

    def write(self, session: str, entry: str) -> None:
        """Append an event that changes the list to the object."""
        known = self._known[session]
        actions = EventActions(state_delta={"entries": [*known.state["entries"], entry]})
        event = Event(invocation_id=entry, author="agent", actions=actions)
        self._runner.run(self._service.append_event(known, event))

    def standing(self, session: str) -> Standing:
        """Get the session; its events are one list, hence one end."""
        return Standing(self._get(session).state["entries"])

    def close(self) -> None:
        """Close the connections."""
        self._runner.run(self._service.close())
        self._runner.close()

    def _get(self, session: str) -> Any:
        return self._runner.run(self._service.get_session(**_OWNER, session_id=session))
