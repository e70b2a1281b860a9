"""Google ADK's session service on a manager, on every store, with either kind of manager."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lifecycle import (
    InvalidTransition,
    LeaseLost,
    LifecycleError,
    LimitExceeded,
    NotSerializable,
    SessionBusy,
    SessionExists,
    SessionManager,
    SessionProtected,
    Settings,
)
from tests.loops import KINDS, Loops, looped
from tests.wire import CountingProxy

pytest.importorskip("google.adk", reason="google-adk is not installed")

from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events import Event, EventActions
from google.adk.sessions import Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai import types

from lifecycle.adapters.adk import LifecycleSessionService
from lifecycle.adapters.adk.keys import Keys

WHO = {"app_name": "app", "user_id": "ada"}


@pytest.fixture(params=KINDS)
def loops(request: pytest.FixtureRequest, migrated_url: str) -> Iterator[Loops]:
    """A manager of either kind on an empty store."""
    with looped(migrated_url, request.param) as opened:
        yield opened


class Service:
    """A service whose calls wait."""

    def __init__(self, loops: Loops, **options: Any) -> None:
        self.service = LifecycleSessionService(loops.manager, **options)
        self._loops = loops

    def create(self, session_id: str | None = None, **more: Any) -> Any:
        """Create a session of Ada's."""
        return self._loops.run(self.service.create_session(**{**WHO, "session_id": session_id, **more}))

    def get(self, session_id: str, **config: Any) -> Any:
        """Get it."""
        given = GetSessionConfig(**config) if config else None
        return self._loops.run(self.service.get_session(**WHO, session_id=session_id, config=given))

    def append(self, session: Any, event: Event) -> Event:
        """Append an event."""
        appended: Event = self._loops.run(self.service.append_event(session, event))
        return appended

    def listed(self, **more: Any) -> list[Any]:
        """The sessions of Ada's, or of whom it says."""
        found: list[Any] = self._loops.run(self.service.list_sessions(**{**WHO, **more})).sessions
        return found

    def __getattr__(self, name: str) -> Any:
        return lambda **named: self._loops.run(getattr(self.service, name)(**named))


@pytest.fixture
def service(loops: Loops) -> Service:
    """A service on an empty store."""
    return Service(loops)


def said(text: str, author: str = "user", state: dict[str, Any] | None = None, **more: Any) -> Event:
    """An event that is nothing but a text."""
    content = types.Content(role="user" if author == "user" else "model", parts=[types.Part(text=text)])
    return Event(
        author=author, invocation_id="i1", content=content, actions=EventActions(state_delta=state or {}), **more
    )


def texts(session: Any) -> list[str]:
    """What its events say."""
    return [event.content.parts[0].text for event in session.events]


EVENTS = [
    said("Hello"),
    said("Grüße \U0001f600\x00", "bot"),
    Event(
        author="bot",
        invocation_id="i1",
        content=types.Content(
            role="model",
            parts=[
                types.Part(function_call=types.FunctionCall(id="c", name="look", args={"where": [1, 2.5, None, {}]})),
                types.Part(inline_data=types.Blob(data=b"\x00\xff\xfe", mime_type="image/png")),
            ],
        ),
        long_running_tool_ids={"c"},
    ),
    Event(author="bot", invocation_id="i2", actions=EventActions(escalate=True, transfer_to_agent="other", artifact_delta={"f": 1})),
    Event(author="user", invocation_id="", content=types.Content(parts=[types.Part(text="", thought=True)])),
    Event(author="bot", invocation_id="i3", turn_complete=True, branch="a.b", error_code="E", error_message="no"),
    said("x" * 20_000, state={"big": "y" * 20_000}),
    said("a long aside", "bot", custom_metadata={"note": "z" * 20_000}),
]  # fmt: skip


def test_events_come_back(service: Service) -> None:
    """Events of any shape, equal and in order; the object that they were appended to is as one that is read anew."""
    session = service.create("s")
    for event in EVENTS:
        service.append(session, event)
    again = service.get("s")
    assert again.events == session.events == EVENTS
    assert again == session
    assert service.get("nobody") is None


def test_a_text_is_a_message(service: Service, loops: Loops) -> None:
    """What a person or a model says can be read, searched and seen in the list; the session says whose it is."""
    session = service.create("s")
    service.append(session, said("Where is my order?"))
    service.append(session, said("On its way", "bot"))
    service.append(session, EVENTS[2])
    key = service.service.key("app", "ada", "s")
    messages = loops.call("get_messages", key)
    assert [(one.role, one.content, one.agent_id) for one in messages[:2]] == [
        ("user", "Where is my order?", None),
        ("assistant", "On its way", "bot"),
    ]
    assert [one.message_id for one in messages] == [event.id for event in session.events]
    stored = loops.call("get_session", key)
    assert (stored.kind, stored.user_id, stored.agent_id, stored.title) == ("adk", "ada", "app", "Where is my order?")
    assert (stored.step, stored.message_count) == (3, 3)


def test_notes_are_no_events(service: Service, loops: Loops) -> None:
    """A message that somebody adds with the manager stays out of ADK's events, and in nobody's way."""
    session = service.create("s")
    service.append(session, said("one"))
    loops.call("add_message", service.service.key("app", "ada", "s"), "operator", "looked at it")
    service.append(session, said("two"))
    assert texts(service.get("s")) == ["one", "two"]
    assert texts(service.get("s", num_recent_events=2)) == ["one", "two"]


def test_states_have_scopes(service: Service) -> None:
    """The app's is seen by all its sessions, the user's by the user's, the session's by itself; temporary by nobody."""
    first = service.create("1", state={"a": 1, "app:b": 2, "user:c": {"d": None}, "temp:e": 5})
    assert first.state == {"a": 1, "app:b": 2, "user:c": {"d": None}}
    second = service.create("2")
    assert second.state == {"app:b": 2, "user:c": {"d": None}}
    changed = said("x", state={"a": None, "app:b": [3], "app:f": 6, "user:g": 1e22, "temp:h": 1, "mine": -0.0})
    service.append(second, changed)
    assert "temp:h" not in changed.actions.state_delta
    assert second.state["temp:h"] == 1
    everybodys = {"app:b": [3], "app:f": 6, "user:c": {"d": None}, "user:g": 1e22}
    assert service.get("1").state == {"a": 1, **everybodys}
    assert service.get("2").state == {"a": None, "mine": -0.0, **everybodys}
    assert service.get("2").events[0].actions.state_delta == changed.actions.state_delta
    other = service.create("1", user_id="bob")
    assert other.state == {"app:b": [3], "app:f": 6}
    assert service.create("1", app_name="other").state == {}
    assert service.get_user_state(**WHO) == {"c": {"d": None}, "g": 1e22}
    assert service.get_user_state(app_name="app", user_id="bob") == {}
    assert {one.id: one.state for one in service.listed()} == {"1": service.get("1").state, "2": service.get("2").state}


def test_state_is_replaced_by_name(service: Service) -> None:
    """A value takes the place of the one before, whole; what is not named stays."""
    session = service.create("s", state={"a": {"x": 1, "y": 2}, "user:a": {"x": 1}, "keep": 0.1 + 0.2})
    service.append(session, said("x", state={"a": {"x": 9}, "user:a": {"z": 1}, "n": 2**70}))
    assert service.get("s").state == {"a": {"x": 9}, "user:a": {"z": 1}, "keep": 0.1 + 0.2, "n": 2**70}


def test_partial_events_are_not_stored(service: Service) -> None:
    """A partial event changes nothing, neither in the store nor in the object."""
    session = service.create("s")
    event = said("Hel", "bot", state={"a": 1}, partial=True)
    assert service.append(session, event) is event
    assert (session.events, session.state) == ([], {})
    assert service.get("s") == session


def test_stale_writers_are_refused(service: Service) -> None:
    """Who has not read the last event is refused, whatever the clocks of the events say, and changes nothing."""
    service.create("s", state={"n": 0})
    first, second = service.get("s"), service.get("s")
    service.append(first, said("one", state={"n": 1}, timestamp=1.0))
    for late in (said("late", timestamp=9e9), said("late", state={"n": 9, "app:n": 9, "user:n": 9}, timestamp=9e9)):
        with pytest.raises(StaleSessionError, match="get it again"):
            service.append(second, late)
    assert (texts(second), second.state) == ([], {"n": 0})
    service.append(first, said("two", timestamp=0.5))
    found = service.get("s")
    assert (texts(found), found.state) == (["one", "two"], {"n": 1})
    service.append(found, said("three"))


def test_a_session_made_anew_is_another(service: Service) -> None:
    """Who still has the one that was deleted is refused by the one that has its id, though neither has an event."""
    old = service.create("s")
    service.delete_session(**WHO, session_id="s")
    with pytest.raises(SessionNotFoundError):
        service.append(old, said("gone"))
    service.create("s")
    with pytest.raises(StaleSessionError):
        service.append(old, said("late"))
    assert service.get("s").events == []
    service.delete_session(**WHO, session_id="nobody")


def test_what_is_no_event_makes_nobody_stale(service: Service, loops: Loops) -> None:
    """A title, a suspension and its end change the version; who has seen all events goes on all the same."""
    session = service.create("s")
    service.append(session, said("one"))
    key = service.service.key("app", "ada", "s")
    loops.call("update_session", key, title="Renamed")
    service.append(session, said("two"))
    loops.call("suspend_session", key)
    with pytest.raises(InvalidTransition, match="suspended"):
        service.append(session, said("three"))
    loops.call("resume_session", key)
    service.append(session, said("three", state={"n": 1}))
    assert texts(service.get("s")) == ["one", "two", "three"]


def test_an_object_that_lost_its_place(service: Service) -> None:
    """One that went through JSON is known by its last event: as good as before, or stale."""
    session = service.create("s")
    service.append(session, said("one"))
    plain = Session.model_validate_json(session.model_dump_json())
    service.append(plain, said("two"))
    service.append(plain, said("three", state={"n": 1}))
    for late in (session, Session.model_validate_json(session.model_dump_json()), Session(id="s", **WHO)):
        with pytest.raises(StaleSessionError):
            service.append(late, said("late"))
    assert texts(service.get("s")) == ["one", "two", "three"]
    assert service.append(service.get("s", num_recent_events=1), said("four"))


def test_an_event_is_stored_once(service: Service) -> None:
    """An event whose id the session has is refused with ADK's error, and changes no state."""
    session = service.create("s")
    event = service.append(session, said("one"))
    with pytest.raises(AlreadyExistsError, match=event.id):
        service.append(session, said("other", state={"app:n": 1}, id=event.id))
    assert texts(service.get("s")) == ["one"]
    assert service.create("t").state == {}


def test_ids(service: Service) -> None:
    """One that is taken is refused and changes nothing; one of blanks is none; blanks around one are not part of it."""
    service.create("s")
    with pytest.raises(AlreadyExistsError, match="s already exists"):
        service.create(" s ", state={"app:n": 1})
    assert service.get(" s\n").id == "s"
    made = service.create("  ")
    assert len(made.id) == 36
    assert made.state == {}
    assert service.create(None).id != made.id
    assert service.create("s", user_id="bob").id == "s"
    service.delete_session(**WHO, session_id=" s")
    assert service.get("s") is None


@pytest.mark.parametrize(
    "names",
    [("a/b", "c", "d"), ("a", "b/c", "d"), ("a%2Fb", "c", "d"), ("ä", "", " "), ("a" * 255, "b" * 255, "c" * 255), ("a", "b" * 255, "/")],
)  # fmt: skip
def test_any_names(service: Service, names: tuple[str, str, str]) -> None:
    """Names that are long, empty or full of separators are sessions like others, found by just these names."""
    app, user, name = names
    own = {"app_name": app, "user_id": user}
    session = service.create(name.strip() or "d", **own, state={"app:a": 1, "user:b": 2})
    service.append(session, said("x"))
    assert [(one.id, one.user_id) for one in service.listed(**own)] == [(session.id, user)]
    assert service.listed(app_name=app, user_id=None) == service.listed(**own)
    assert service.get_session(**own, session_id=session.id) == session


def test_keys_are_one_to_one() -> None:
    """No two sessions, apps or users share a key, be it written out or a digest."""
    names = ("", "a", "b", "a/b", "%2F", "/", "a%2Fb", "x" * 200, "x" * 201)
    triples = [(app, user, own) for app in names for user in names for own in names]
    assert len({Keys.of(*triple).session for triple in triples}) == len(triples)
    assert (
        len({key for app in names for user in names for key in Keys.of(app, user)[1:]}) == len(names) + len(names) ** 2
    )
    assert all(len(key) <= 255 for triple in triples for key in Keys.of(*triple))


def test_the_last_events(service: Service, loops: Loops) -> None:
    """`num_recent_events` and `after_timestamp`, over pages too; the times are the events' own."""
    page = loops.manager.settings.limits.messages_page
    assert page == 500
    session = service.create("s")
    for i in range(12):
        service.append(session, said(str(i), timestamp=100.0 + i))
    for n in (0, 1, 5, 12, 50):
        assert texts(service.get("s", num_recent_events=n)) == [str(i) for i in range(12)][12 - min(n, 12) :]
    assert texts(service.get("s", after_timestamp=109.0)) == ["9", "10", "11"]
    assert texts(service.get("s", after_timestamp=108.5, num_recent_events=2)) == ["10", "11"]
    assert texts(service.get("s", after_timestamp=999.0)) == []
    assert service.get("s", num_recent_events=3).state == session.state


def test_more_than_a_page(shared_url: str) -> None:
    """Events of many pages come back whole and in order, with any of the filters."""
    settings = Settings(database={"url": shared_url}, limits={"messages_page": 4})
    with looped(settings, "blocking") as loops:
        service = Service(loops)
        session = service.create("s")
        for i in range(19):
            service.append(session, said(str(i), timestamp=100.0 + i % 7))
        every = [str(i) for i in range(19)]
        assert texts(service.get("s")) == every
        assert [texts(service.get("s", num_recent_events=n)) for n in (3, 4, 5, 19)] == [
            every[-n:] for n in (3, 4, 5, 19)
        ]
        late = [text for text in every if int(text) % 7 >= 4]
        assert texts(service.get("s", after_timestamp=104.0)) == late
        assert texts(service.get("s", after_timestamp=104.0, num_recent_events=5)) == late[-5:]


def test_the_session_last_changed_is_listed_last(service: Service) -> None:
    """By the database's clock, of an app or of a user in it, over pages of the manager's; without events."""
    names = [str(i) for i in range(5)]
    sessions = {name: service.create(name) for name in names}
    service.create("x", user_id="bob")
    service.create("y", app_name="other")
    for name in ("3", "0"):
        service.append(sessions[name], said("x", timestamp=1.0))
    listed = service.listed()
    assert [one.id for one in listed] == ["1", "2", "4", "3", "0"]
    assert all(one.events == [] for one in listed)
    assert [one.last_update_time for one in listed] == sorted(one.last_update_time for one in listed)
    assert [one.id for one in service.listed(user_id=None)] == ["1", "2", "4", "x", "3", "0"]
    assert {one.id: one.last_update_time for one in listed} == {
        name: service.get(name).last_update_time for name in names
    }
    assert service.listed(user_id="nobody") == []


def test_many_sessions_are_listed(shared_url: str) -> None:
    """All of them, each once, in pages of the manager's."""
    with looped(Settings(database={"url": shared_url}, limits={"page_size": 10}), "blocking") as loops:
        service = Service(loops)
        for i in range(34):
            service.create(str(i), user_id=f"u{i % 3}", state={"i": i, "user:last": i})
        listed = service.listed(user_id=None)
        assert sorted(int(one.id) for one in listed) == list(range(34))
        assert all(one.state == {"i": int(one.id), "user:last": 31 + (int(one.id) - 31) % 3} for one in listed)


def test_a_lifecycle(service: Service, loops: Loops) -> None:
    """What expired is read as ever and reopened by the next event, unless that is not wanted; what is over takes none."""
    session = service.create("s")
    key = service.service.key("app", "ada", "s")
    service.append(session, said("one"))
    loops.call("expire_session", key)
    assert texts(service.get("s")) == ["one"]
    with pytest.raises(InvalidTransition, match="expired"):
        Service(loops, reopen=False).append(service.get("s"), said("two"))
    service.append(session, said("two"))
    assert loops.call("get_session", key).state == "active"
    loops.call("complete_session", key)
    with pytest.raises(InvalidTransition, match="completed"):
        service.append(session, said("three"))
    assert texts(service.get("s")) == texts(session) == ["one", "two"]
    loops.call("delete_session", key, soft=True)
    assert service.get("s") is None
    assert service.listed() == []
    with pytest.raises(AlreadyExistsError):
        service.create("s")


def test_what_is_shared_is_kept(service: Service, loops: Loops) -> None:
    """The sessions that hold an app's and a user's state are protected from the sweeps; a user's goes with the user."""
    service.create("s", state={"app:a": 1, "user:b": 2})
    assert all(loops.call("get_session", key).protected for key in ("adk-app:app", "adk-user:app/ada"))
    assert service.create("t").state == {"app:a": 1, "user:b": 2}
    loops.call("delete_user", "ada")
    assert service.listed() == []
    assert service.create("u").state == {"app:a": 1}


def test_what_is_shared_and_hidden_is_told(service: Service, loops: Loops) -> None:
    """An app's state that somebody soft-deleted cannot be made anew: that is an error, and not an endless one."""
    session = service.create("s", state={"app:a": 1})
    loops.call("delete_session", "adk-app:app", soft=True, force=True)
    attempts: tuple[Callable[[], Any], ...] = (
        lambda: service.append(session, said("x", state={"app:a": 2})),
        lambda: service.create("t", state={"app:a": 2}),
    )
    for refused in attempts:
        with pytest.raises(SessionExists, match="adk-app:app"):
            refused()
    assert service.get("s").events == []
    assert service.get("t") is None


def test_under_a_lease(loops: Loops) -> None:
    """Events are appended under the lease of whoever holds the session, and by nobody else; other sessions need none."""
    service = Service(loops)
    session, other = service.create("s"), service.create("other")
    key = service.service.key("app", "ada", "s")

    async def write(lease: Any) -> None:
        mine = LifecycleSessionService(loops.manager, lease=lease)
        await mine.append_event(session, said("one", state={"app:n": 1}))
        await mine.append_event(other, said("free"))
        stale = await service.service.get_session(**WHO, session_id="s")
        with pytest.raises(SessionBusy):
            await service.service.append_event(stale, said("busy"))
        with pytest.raises(SessionBusy):
            await service.service.delete_session(**WHO, session_id="s")
        for move in ("suspend_session", "resume_session"):  # an operator's, which ends the lease
            answer = getattr(loops.manager, move)(key)
            if asyncio.iscoroutine(answer):
                await answer
        with pytest.raises(LeaseLost):
            await mine.append_event(session, said("late", state={"app:n": 2}))

    async def go() -> None:
        held = loops.manager.lease(key, ttl=60)
        if isinstance(loops.manager, SessionManager):
            with held as lease:
                await write(lease)
        else:
            async with held as lease:
                await write(lease)

    loops.run(go())
    found = service.get("s")
    assert (texts(found), found.state) == (["one"], {"app:n": 1})
    loops.call("update_session", key, protected=True)
    with pytest.raises(SessionProtected):
        service.delete_session(**WHO, session_id="s")


BAD: dict[str, tuple[Any, type[LifecycleError]]] = {
    "nan": (lambda: said("x", state={"a": float("nan")}), NotSerializable),
    "surrogate": (lambda: said("\ud800", state={"app:n": 1}), LifecycleError),
    "large": (lambda: said("x" * 100_001, state={"app:n": 1}), LimitExceeded),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_stored_is_refused(service: Service, what: str) -> None:
    """The error says what and why, and neither the store nor the object changed."""
    make, error = BAD[what]
    session = service.create("s")
    with pytest.raises(error):
        service.append(session, make())
    assert (session.events, session.state) == ([], {})
    assert service.get("s") == session
    service.append(session, said("fine"))


def test_what_json_cannot_hold_is_described(service: Service) -> None:
    """As with ADK's own services: a function in the state becomes a text about it, and a set a list."""
    session = service.create("s", state={"when": {1, 2}, "call": print})
    service.append(session, said("x", state={"call": len}))
    state = service.get("s").state
    assert sorted(state["when"]) == [1, 2]
    assert isinstance(state["call"], str)


def test_appends_through_one_object_go_one_behind_the_other(service: Service, loops: Loops) -> None:
    """Tasks that share the object, as branches of one invocation do: none is stale, and none is lost."""
    session = service.create("s", state={"n": 0})

    async def go() -> None:
        await asyncio.gather(
            *(service.service.append_event(session, said(str(i), state={f"n{i}": i, "app:n": i})) for i in range(20))
        )

    loops.run(go())
    assert sorted(map(int, texts(session))) == list(range(20))
    found = service.get("s")
    assert texts(found) == texts(session)
    assert found.state == session.state


def test_shared_state_loses_nothing(service: Service, loops: Loops) -> None:
    """Sessions of one user that all add to what they share: every name is there."""
    sessions = [service.create(str(i)) for i in range(8)]

    async def go() -> None:
        for turn in range(3):
            await asyncio.gather(
                *(
                    service.service.append_event(
                        one, said("x", state={f"app:{one.id}.{turn}": 1, f"user:{one.id}.{turn}": 1})
                    )
                    for one in sessions
                )
            )

    loops.run(go())
    names = {f"{scope}:{i}.{turn}" for scope in ("app", "user") for i in range(8) for turn in range(3)}
    assert set(service.get("0").state) == names


def test_reading_beside_appends(service: Service, loops: Loops) -> None:
    """Whoever reads meanwhile has as many events as the state counts."""
    session = service.create("s", state={"n": 0})

    async def write() -> None:
        for i in range(1, 31):
            await service.service.append_event(session, said(str(i), state={"n": i}))

    async def look() -> None:
        while not done:
            found = await service.service.get_session(**WHO, session_id="s")
            assert found is not None
            assert texts(found) == [str(i) for i in range(1, found.state["n"] + 1)]
            await asyncio.sleep(0)

    done: list[bool] = []

    async def go() -> None:
        looking = asyncio.create_task(look())
        await write()
        done.append(True)
        await looking

    loops.run(go())


def test_cancelled_callers_leave_nothing_locked(service: Service, loops: Loops) -> None:
    """A task cancelled at any moment has appended its event or not when it ends, and the next one goes on at once."""

    async def go() -> None:
        for spins in range(30):
            session = await service.service.get_session(**WHO, session_id="s")
            task = asyncio.create_task(service.service.append_event(session, said(str(spins), state={"app:n": spins})))
            for _ in range(spins % 15):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            async with asyncio.timeout(30):
                after = await service.service.get_session(**WHO, session_id="s")
                assert session is not None
                assert after is not None
                assert len(after.events) - len(session.events) in (0, 1)
                await service.service.append_event(after, said("next"))

    service.create("s")
    loops.run(go())


def test_round_trips(migrated_postgres_url: str) -> None:
    """An event asks PostgreSQL once, or twice where it changes a state, of whatever scopes; a session is read in one."""
    with CountingProxy(migrated_postgres_url) as proxy, looped(proxy.settings, "async") as loops:
        service = Service(loops)
        session = service.create("s", state={"a": 1, "app:b": 1, "user:c": 1})

        def counted(work: Any) -> int:
            before = proxy.round_trips
            loops.run(work)
            return proxy.round_trips - before

        def append(state: dict[str, Any] | None = None) -> Any:
            return service.service.append_event(session, said("x", state=state))

        kinds: dict[str, Any] = {
            "text": None,
            "temporary": {"temp:a": 1},
            "session": {"a": 2},
            "app and user": {"app:b": 2, "user:c": 2},
            "all": {"a": 3, "app:b": 3, "user:c": 3},
        }
        for state in kinds.values():
            loops.run(append(state))
        assert {kind: counted(append(state)) for kind, state in kinds.items()} == {
            "text": 1,
            "temporary": 1,
            "session": 2,
            "app and user": 2,
            "all": 2,
        }
        assert len({service.get("s").last_update_time, session.last_update_time}) == 1
        assert counted(service.service.get_session(**WHO, session_id="s")) == 1
        plain = Session.model_validate_json(service.get("s").model_dump_json())
        service.append(plain, said("x"))
        assert counted(service.service.append_event(plain, said("x"))) == 2
