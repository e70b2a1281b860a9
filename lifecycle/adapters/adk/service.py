"""The session service: ADK's calls on the manager's."""

import asyncio
import weakref
from typing import Any

from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.events import Event
from google.adk.sessions import BaseSessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig, ListSessionsResponse

from lifecycle.adapters.adk.appending import MOST_TAKEN, Appending, States, shared
from lifecycle.adapters.adk.documents import Scopes, merged, plain, state_in
from lifecycle.adapters.adk.keys import Keys
from lifecycle.adapters.adk.reading import read_session
from lifecycle.adapters.adk.stored import Place, StoredSession
from lifecycle.adapters.calls import Calls, Manager, settled
from lifecycle.errors import SessionExists, VersionConflict
from lifecycle.ids import uuid7
from lifecycle.models.reads import SavedState
from lifecycle.operations.fencing import Held


class LifecycleSessionService(BaseSessionService):  # type: ignore[misc]  # as `StoredSession`
    """ADK's sessions, in the manager's tenant. `key` says under which id the manager knows each.

    One that has expired is reopened by its next event, unless `reopen` is false; one that is suspended, completed or
    ended refuses events with `InvalidTransition`. Events of the session that a `lease` is on are appended under it;
    without one they raise `SessionBusy` while somebody holds the session. New sessions are of the kind `kind`.

    `manager` may be a `SessionManager`, for any number of event loops (`Runner.run` makes one for each call), or an
    `AsyncSessionManager`, for the one that uses it first. It is not closed by the service.
    """

    def __init__(self, manager: Manager, *, kind: str = "adk", lease: Held | None = None, reopen: bool = True) -> None:
        self._calls = Calls(manager)
        self._kind = kind
        self._lease = lease
        self._reopen = reopen
        # Who appends through an object while another does goes on from what that one makes of it.
        self._turns: weakref.WeakValueDictionary[tuple[int, int], asyncio.Lock] = weakref.WeakValueDictionary()

    def key(self, app_name: str, user_id: str, session_id: str) -> str:
        """The id of the session in the manager: to lease, suspend or complete it, or to look at it."""
        return self._keys(app_name, user_id, session_id.strip()).session

    async def create_session(
        self,
        *,
        app_name: str,
        user_id: str,
        state: dict[str, Any] | None = None,
        session_id: str | None = None,
    ) -> Session:
        """Create a session and what its state says for the app and the user, all or none.

        Without an id, or with a blank one, it gets a UUIDv7. Raises ADK's `AlreadyExistsError`.
        """
        name = (session_id or "").strip() or uuid7()
        keys, scopes, place = self._keys(app_name, user_id, name), Scopes.of(plain(state or {})), Place.first()
        creation = {
            "session_id": keys.session,
            "kind": self._kind,
            "user_id": user_id,
            "agent_id": app_name,
            "metadata": {"session_id": name},
            "phase": place.born,
            "context": {"state": scopes.session},
        }
        try:
            made, states = await settled(self._create(keys, scopes, creation))
        except SessionExists as error:
            if error.session_id != keys.session:
                raise  # what is shared: somebody hid it
            raise AlreadyExistsError(f"Session with id {name} already exists.") from error
        return StoredSession.at(
            place,
            app_name=app_name,
            user_id=user_id,
            id=name,
            state=merged(*({**state_in(saved), **delta} for saved, delta in zip(states, scopes, strict=True))),
            last_update_time=made.updated_at.timestamp(),
        )

    async def get_session(
        self, *, app_name: str, user_id: str, session_id: str, config: GetSessionConfig | None = None
    ) -> Session | None:
        """The session with its events in the order in which they were appended, or None.

        Of the events those from the time `config.after_timestamp` on, and of these the last `num_recent_events`.
        """
        name = session_id.strip()
        keys = self._keys(app_name, user_id, name)
        return await read_session(
            self._calls, keys, config or GetSessionConfig(), app_name=app_name, user_id=user_id, id=name
        )

    async def list_sessions(self, *, app_name: str, user_id: str | None = None) -> ListSessionsResponse:
        """The sessions of an app, or of a user in it, with their states and without events; the one last changed is last."""
        listed: dict[str, Any] = {}
        cursor: str | None = None
        while True:
            page = await self._calls.ask(
                "list_sessions",
                agent_id=app_name,
                user_id=user_id,
                order="asc",
                limit=self._calls.manager.settings.limits.page_size,
                cursor=cursor,
            )
            for one in page.items:
                listed.pop(one.session_id, None)  # it was changed meanwhile, and comes a second time
                if self._is_ours(one):
                    listed[one.session_id] = one
            cursor = page.next_cursor
            if cursor is None:
                break
        return ListSessionsResponse(sessions=await self._listed(app_name, list(listed.values())))

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Remove a session with its events, if it is there. Raises `SessionBusy`, `SessionProtected`."""
        await self._calls.do("delete_session", self.key(app_name, user_id, session_id))

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """What a user's sessions in an app share, by names without `user:`."""
        (saved,) = await self._states([self._keys(app_name, user_id, "").user])
        return state_in(saved)

    async def append_event(self, session: Session, event: Event) -> Event:
        """Store an event and the changes of state in it, all or none, and bring `session` up to it.

        A partial event is not stored. Raises ADK's `StaleSessionError` when another event was appended since the object
        was read, `SessionNotFoundError`, and `AlreadyExistsError` when the session has an event with this id.
        """
        if event.partial:
            return event
        keys = self._keys(session.app_name, session.user_id, session.id)
        lease = self._lease if self._lease is not None and self._lease.session_id == keys.session else None
        turn = self._turns.setdefault((id(asyncio.get_running_loop()), id(session)), asyncio.Lock())
        async with turn:
            await settled(Appending(self._calls, keys, session, event).store(lease, reopen=self._reopen))
            return await super().append_event(session, event)

    async def _listed(self, app_name: str, found: list[Any]) -> list[Session]:
        """The sessions with their states; those that were removed meanwhile have none, and are left out."""
        keys = {one.session_id: self._keys(app_name, one.user_id, one.metadata["session_id"]) for one in found}
        wanted = list(dict.fromkeys(key for own in keys.values() for key in own))
        saved = dict(zip(wanted, await self._states(wanted), strict=True))
        return [
            Session(
                app_name=app_name,
                user_id=one.user_id,
                id=one.metadata["session_id"],
                state=merged(*(state_in(saved[key]) for key in keys[one.session_id])),
                last_update_time=one.updated_at.timestamp(),
            )
            for one in found
            if saved[one.session_id] is not None
        ]

    async def _create(self, keys: Keys, scopes: Scopes, creation: dict[str, Any]) -> tuple[Any, States]:
        """The session that was created, and the states it found. Raises `SessionExists`."""
        taken = 0
        while True:
            states = States(None, *await self._states([keys.app, keys.user]))
            others = shared(keys, scopes, states, creation["user_id"])
            try:
                if not others:
                    return await self._calls.ask("create_session", **creation), states
                made, *_ = await self._calls.ask("together", [("create_session", creation), *others])
            except VersionConflict:
                continue  # another changed what is shared
            except SessionExists as error:
                taken += 1
                if error.session_id == keys.session or taken > MOST_TAKEN:
                    raise
            else:
                return made, states

    async def _states(self, keys: list[str]) -> list[SavedState | None]:
        """The saved states of these sessions, in as few round trips as it takes."""
        most = self._calls.manager.settings.limits.page_size
        found: list[SavedState | None] = []
        for start in range(0, len(keys), most):
            reads = [("load_state", {"session_id": key, "any_state": True}) for key in keys[start : start + most]]
            found += await self._calls.ask("together", reads)
        return found

    def _keys(self, app_name: str, user_id: str, session_id: str) -> Keys:
        return Keys.of(app_name, user_id, session_id, longest=self._calls.manager.settings.limits.id_chars)

    def _is_ours(self, session: Any) -> bool:
        """Whether a session of the app's and the user's is one of ADK's."""
        name = session.metadata.get("session_id")
        return isinstance(name, str) and session.session_id == self.key(session.agent_id, session.user_id or "", name)
