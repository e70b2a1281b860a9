"""The adapters beside their frameworks' own stores on SQLite: the same calls, the same answers.

What theirs lose, change or let pass is left out of what is generated, and listed with its reasons in docs/adapters.md;
`tests/integration/test_openai_agents.py` and `test_adk.py` say what ours do about it.
"""

import asyncio
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, multiple, rule, run_state_machine_as_test

from lifecycle import SessionManager

pytest.importorskip("agents", reason="openai-agents is not installed")
pytest.importorskip("google.adk", reason="google-adk is not installed")

import agents
from google.adk.events import Event, EventActions
from google.adk.platform import time as adk_time
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.genai import types

from lifecycle.adapters.adk import LifecycleSessionService
from lifecycle.adapters.openai_agents import LifecycleSession

QUICK = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
_numbers = itertools.count()

# No lone surrogates: ours refuse them.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
ITEMS = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": TEXTS}),
    st.fixed_dictionaries({"role": TEXTS, "content": VALUES}),
    st.fixed_dictionaries({"type": TEXTS}, optional={"role": VALUES, "content": VALUES, "id": TEXTS}),
    st.dictionaries(TEXTS, VALUES, max_size=4),
)


@pytest.fixture
def manager(shared_url: str) -> Iterator[SessionManager]:
    """A manager on an empty database."""
    with SessionManager.open(shared_url) as opened:
        yield opened


def test_openai_sessions_are_alike(manager: SessionManager, tmp_path: Path) -> None:
    """Adding, popping, clearing and reading, through objects made anew now and then."""

    class Alike(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.example = next(_numbers)
            self.opened: list[Any] = []

        @rule(name=st.sampled_from("ab"), items=st.lists(ITEMS, max_size=4))
        def add(self, name: str, items: list[Any]) -> None:
            self.both(name, lambda session: session.add_items(items))

        @rule(name=st.sampled_from("ab"))
        def pop(self, name: str) -> None:
            self.both(name, lambda session: session.pop_item())

        @rule(name=st.sampled_from("ab"))
        def clear(self, name: str) -> None:
            self.both(name, lambda session: session.clear_session())

        @rule(name=st.sampled_from("ab"), limit=st.none() | st.integers(-2, 9), default=st.none() | st.integers(0, 5))
        def get(self, name: str, limit: int | None, default: int | None) -> None:
            self.both(name, lambda session: session.get_items(limit), default)

        def both(self, name: str, call: Callable[[Any], Any], default: int | None = None) -> None:
            session_id, limits = f"{self.example}-{name}", agents.SessionSettings(limit=default)
            ours = LifecycleSession(session_id, manager, session_settings=limits)
            theirs = agents.SQLiteSession(session_id, tmp_path / "theirs.db", session_settings=limits)
            try:
                assert same(asyncio.run(call(theirs)), asyncio.run(call(ours)))
            finally:
                theirs.close()

    run_state_machine_as_test(Alike, settings=QUICK)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types: 1, 1.0 and True are three values, and so are 0.0 and -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)


NAMES = st.sampled_from(["n", "m", "app:n", "app:m", "user:n", "user:m", "temp:n", "", "app:", "user:", "a b", "ä"])
STATES = st.dictionaries(NAMES, VALUES, max_size=4)
PARTS = st.one_of(
    TEXTS.map(lambda text: types.Part(text=text)),
    st.dictionaries(TEXTS, VALUES, max_size=2).map(
        lambda args: types.Part(function_call=types.FunctionCall(id="c", name="f", args=args))
    ),
    st.binary(max_size=8).map(lambda data: types.Part(inline_data=types.Blob(data=data, mime_type="x/y"))),
)
CONTENTS = st.none() | st.builds(
    lambda parts, role: types.Content(parts=parts, role=role),
    st.lists(PARTS, max_size=2),
    st.sampled_from(["user", "model", None]),
)
EVENTS = st.fixed_dictionaries(
    {
        "author": st.sampled_from(["user", "bot"]),
        "invocation_id": TEXTS,
        "content": CONTENTS,
        "state": STATES,
        "partial": st.sampled_from([None, None, False, True]),
        "branch": st.none() | TEXTS,
    }
)
CONFIGS: st.SearchStrategy[dict[str, Any] | None] = st.none() | st.builds(
    dict, num_recent_events=st.none() | st.integers(0, 5), back=st.none() | st.integers(0, 6)
)


def test_adk_services_are_alike(manager: SessionManager, tmp_path: Path) -> None:
    """Creating, appending to objects old and new, reading, listing and deleting: the same sessions, states and errors."""
    ours, theirs = LifecycleSessionService(manager), SqliteSessionService(str(tmp_path / "theirs.db"))

    class Alike(RuleBasedStateMachine):
        sessions = Bundle("sessions")

        def __init__(self) -> None:
            super().__init__()
            example = next(_numbers)
            self.apps = [f"{example}", f"{example}/x"]
            self.clock = itertools.count(1_000_000)
            self.now = next(self.clock)

        @rule(
            target=sessions,
            app=st.integers(0, 1),
            user=st.sampled_from("ab"),
            name=st.sampled_from([" s", "s", "t"]),
            state=STATES,
        )
        def create(self, app: int, user: str, name: str, state: dict[str, Any]) -> Any:
            self.now = next(self.clock)
            who = {"app_name": self.apps[app], "user_id": user, "session_id": name}
            made = self.both(lambda service: service.create_session(**who, state=state))
            return made or multiple()

        @rule(
            target=sessions,
            app=st.integers(0, 1),
            user=st.sampled_from("ab"),
            name=st.sampled_from(["s", "t "]),
            config=CONFIGS,
        )
        def get(self, app: int, user: str, name: str, config: dict[str, Any] | None) -> Any:
            given = None
            if config is not None:
                after = None if config["back"] is None else float(self.now - config["back"])
                given = GetSessionConfig(num_recent_events=config["num_recent_events"], after_timestamp=after)
            who = {"app_name": self.apps[app], "user_id": user, "session_id": name}
            return self.both(lambda service: service.get_session(**who, config=given)) or multiple()

        @rule(pair=sessions, event=EVENTS)
        def append(self, pair: Any, event: dict[str, Any]) -> None:
            self.now = next(self.clock)
            made = Event(
                author=event["author"], invocation_id=event["invocation_id"], content=event["content"], branch=event["branch"],
                partial=event["partial"], actions=EventActions(state_delta=event["state"]), timestamp=float(self.now),
            )  # fmt: skip
            objects = {ours: pair[0], theirs: pair[1]}
            if self.both(lambda service: service.append_event(objects[service], made.model_copy(deep=True))):
                assert alike(pair[0], pair[1])

        @rule(app=st.integers(0, 1), user=st.none() | st.sampled_from("ab"))
        def list_all(self, app: int, user: str | None) -> None:
            self.both(lambda service: service.list_sessions(app_name=self.apps[app], user_id=user))

        @rule(app=st.integers(0, 1), user=st.sampled_from("abc"))
        def user_state(self, app: int, user: str) -> None:
            self.both(lambda service: service.get_user_state(app_name=self.apps[app], user_id=user))

        @rule(pair=consumes(sessions))
        def delete(self, pair: Any) -> None:
            who = {"app_name": pair[0].app_name, "user_id": pair[0].user_id, "session_id": pair[0].id}
            self.both(lambda service: service.delete_session(**who))

        def both(self, call: Callable[[Any], Any]) -> tuple[Any, Any] | None:
            """Both answers, which are alike; None where both refused alike, or gave nothing."""
            answers = []
            for service in (ours, theirs):
                adk_time.set_time_provider(lambda: float(self.now))
                try:
                    answers.append(asyncio.run(call(service)))
                except ValueError as error:
                    answers.append(type(error))
                except Exception as error:
                    if type(error).__module__.startswith("google.adk.errors"):
                        answers.append(type(error))
                    else:
                        raise
                finally:
                    adk_time.reset_time_provider()
            assert alike(*answers), answers
            return None if answers[0] is None or isinstance(answers[0], type) else (answers[0], answers[1])

    run_state_machine_as_test(Alike, settings=QUICK)


def alike(one: Any, other: Any) -> bool:
    """The same answer, whatever clock it was stamped by."""
    return same(told(one), told(other))


def told(answer: Any) -> Any:
    """What an answer says."""
    if hasattr(answer, "sessions"):
        return [told(session) for session in answer.sessions]
    if hasattr(answer, "model_dump"):
        return answer.model_dump(exclude={"last_update_time"})
    return answer
