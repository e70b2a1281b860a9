"""Reading a session with its events as they stood at one moment, though others append meanwhile."""

from typing import Any, Final

from google.adk.events import Event
from google.adk.sessions.base_session_service import GetSessionConfig

from lifecycle.adapters.adk.documents import event_of, merged, state_in
from lifecycle.adapters.adk.keys import Keys
from lifecycle.adapters.adk.stored import Place, StoredSession
from lifecycle.adapters.calls import Calls
from lifecycle.models.reads import Message

_LAST: Final = 2**63 - 1


async def read_session(calls: Calls, keys: Keys, config: GetSessionConfig, **names: str) -> StoredSession | None:
    """The session, or None."""
    while True:
        try:
            return await _Reading(calls, keys, config).read(names)
        except _MadeAnewError:
            continue


class _MadeAnewError(Exception):
    """The session was removed and made anew while it was read."""


class _Reading:
    def __init__(self, calls: Calls, keys: Keys, config: GetSessionConfig) -> None:
        self._calls = calls
        self._keys = keys
        self._wanted: int | None = config.num_recent_events
        # As in ADK's own services: 0 is none.
        self._after = config.after_timestamp or None
        self._found: list[Event] = []  # the last one first

    async def read(self, names: dict[str, str]) -> StoredSession | None:
        """The states and the last events in one go, then what is left of the events."""
        size = self._size()
        reads: list[Any] = [
            ("get_session", {"session_id": self._keys.session}),
            *[("load_state", {"session_id": key, "any_state": True}) for key in self._keys],
        ]
        if size:
            reads.append(("get_messages", {"session_id": self._keys.session, "before": _LAST, "limit": size}))
        session, saved, app, user, *pages = await self._calls.ask("together", reads)
        if session is None or saved is None:
            return None
        place = Place.of(saved)
        messages: list[Message] = pages[0] if pages else []
        while self._take(messages, place) and len(messages) == size:
            size = self._size()
            messages = await self._calls.ask(
                "get_messages", self._keys.session, before=messages[0].seq, limit=size
            )  # fmt: skip
        return StoredSession.at(
            place,
            **names,
            state=merged(state_in(saved), state_in(app), state_in(user)),
            events=self._found[::-1],
            last_update_time=session.updated_at.timestamp(),
        )

    def _size(self) -> int:
        """How many messages to read at once."""
        page = self._calls.manager.settings.limits.messages_page
        if self._wanted is None:
            return page
        left = self._wanted - len(self._found)
        return page if self._after is not None and left else min(page, left)

    def _take(self, messages: list[Message], place: Place) -> bool:
        """Take the events that the state had seen, the last first; whether more are wanted."""
        for message in reversed(messages):
            if "born" not in message.metadata:
                continue  # somebody's note, not an event
            if message.metadata["born"] != place.born:
                raise _MadeAnewError
            if int(message.metadata["number"]) > place.number:
                continue  # appended since the state was read
            if len(self._found) == self._wanted:
                return False
            event = event_of(message)
            if self._after is None or bool(event.timestamp >= self._after):
                self._found.append(event)
        return len(self._found) != self._wanted
