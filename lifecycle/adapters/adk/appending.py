"""Appending an event: it and the states that it changes, all or none, if nobody has appended another one before."""

from typing import Any, Final, NamedTuple

from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events import Event
from google.adk.sessions import Session

from lifecycle.adapters.adk.documents import Scopes, dumped_event, message_of, state_in
from lifecycle.adapters.adk.keys import Keys
from lifecycle.adapters.adk.stored import Place, new_phase, place_of, put
from lifecycle.adapters.calls import Calls
from lifecycle.errors import InvalidTransition, MessageExists, SessionExists, SessionNotFound, VersionConflict
from lifecycle.models.reads import SavedState
from lifecycle.operations.fencing import Held

Call = tuple[str, dict[str, Any]]
# Others may make what is shared at the same moment; one that stays hidden was soft-deleted.
MOST_TAKEN: Final = 3
_LAST: Final = 2**63 - 1


class States(NamedTuple):
    """What is stored of the session, of the app's state and of the user's; None where nothing is, or nobody looked."""

    session: SavedState | None = None
    app: SavedState | None = None
    user: SavedState | None = None


class Appending:
    """One event on its way into the store."""

    def __init__(self, calls: Calls, keys: Keys, session: Session, event: Event) -> None:
        self._calls = calls
        self._keys = keys
        self._session = session
        self._event = event
        self._dumped, delta = dumped_event(event)
        self._scopes = Scopes.of(delta)
        self._changes = bool(delta)

    async def store(self, lease: Held | None, *, reopen: bool) -> None:
        """Store it, and have the session stand behind it.

        One round trip where no state changes, two where some does; more only where something came in between.
        """
        place, states = place_of(self._session), States()
        look, taken = self._changes or place is None, 0
        while True:
            if look:
                place, states = await self._look()
            assert place is not None  # noqa: S101 -- for the types
            try:
                updated_at = await self._write(place, states, lease)
            except InvalidTransition as error:
                if not (reopen and error.state == "expired" and error.session_id == self._keys.session):
                    raise
                await self._calls.ask("reopen_session", self._keys.session, reason="the conversation goes on")
            except MessageExists as error:
                raise AlreadyExistsError(f"Event with id {self._event.id} already exists.") from error
            except SessionExists:
                taken += 1
                if taken > MOST_TAKEN:
                    raise
            except (VersionConflict, SessionNotFound):
                pass  # what is stored now says what that means
            else:
                put(self._session, place.next, updated_at)
                return
            look = True

    async def _look(self) -> tuple[Place, States]:
        """Read the states that change. Raises what is wrong with appending to the session as it is."""
        keys, scopes, session = self._keys, self._scopes, self._session
        read = [keys.session, *([keys.app] if scopes.app else []), *([keys.user] if scopes.user else [])]
        calls: list[Call] = [("load_state", {"session_id": key, "any_state": True}) for key in read]
        known = place_of(session)
        if known is None:
            calls.append(("get_messages", {"session_id": keys.session, "before": _LAST, "limit": 1}))
        answers = await self._calls.ask("together", calls)
        found = dict(zip(read, answers, strict=False))
        states = States(found[keys.session], found.get(keys.app), found.get(keys.user))
        if states.session is None:
            raise SessionNotFoundError(f"Session {session.id} not found.")
        place = Place.of(states.session)
        if known is None:
            seen = [event.id for event in session.events[-1:]]
            stale = seen != [message.message_id for message in answers[-1]]
        else:
            stale = (known.born, known.number) != (place.born, place.number)
        if stale:
            raise StaleSessionError(
                f"Session {session.id} was changed since it was read: get it again before appending to it."
            )
        return place, states

    async def _write(self, place: Place, states: States, lease: Held | None) -> float:
        save: dict[str, Any] = {
            "session_id": self._keys.session,
            "step": place.next.number,
            "lease": lease,
        }
        if self._scopes.session:
            save["context"] = {"state": {**state_in(states.session), **self._scopes.session}}
        message = message_of(self._dumped, place.next.stamp)
        _, _, added, *_ = await self._calls.ask(
            "together",
            [
                expected(self._keys.session, place.version, place.born),
                ("save_state", save),
                ("add_message", {"session_id": self._keys.session, "lease": lease, **message}),
                *shared(self._keys, self._scopes, states, self._session.user_id),
            ],
        )
        return float(added.created_at.timestamp())


def shared(keys: Keys, scopes: Scopes, states: States, user_id: str) -> list[Call]:
    """The calls that change what sessions share: each on what was read of it, or making it."""
    calls: list[Call] = []
    for key, kind, owner, saved, delta in (
        (keys.app, "adk-app", None, states.app, scopes.app),
        (keys.user, "adk-user", user_id, states.user, scopes.user),
    ):
        context = {"state": {**state_in(saved), **delta}}
        if delta and saved is not None:
            calls.append(expected(key, saved.version, saved.phase))
            calls.append(("save_state", {"session_id": key, "context": context}))
        elif delta:
            made = {"session_id": key, "kind": kind, "user_id": owner, "context": context, "phase": new_phase()}
            calls.append(("create_session", {**made, "protected": True}))
    return calls


def expected(key: str, version: int, phase: str | None) -> Call:
    """The call that refuses the others where a session is not what was read, though it had the same id and version."""
    return "expect_session", {"session_id": key, "version": version, "phase": phase}
