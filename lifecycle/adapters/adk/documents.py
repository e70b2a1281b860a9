"""What is stored of ADK's states and events, and what is read back from it."""

import json
from typing import Any, Final, NamedTuple, Self

from google.adk.events import Event, EventActions
from google.adk.sessions import State
from pydantic_core import PydanticSerializationError, to_jsonable_python

from lifecycle.models.reads import Message, SavedState

# Less than the metadata of a message may hold, whatever its characters take in UTF-8.
_MOST_BESIDE: Final = 16_000


class Scopes(NamedTuple):
    """A state, or a change of one, by whose it is: the session's, the app's, the user's."""

    session: dict[str, Any]
    app: dict[str, Any]
    user: dict[str, Any]

    @classmethod
    def of(cls, state: dict[str, Any]) -> Self:
        """That of names with prefixes. What is temporary is nobody's."""
        scopes = cls({}, {}, {})
        for name, value in state.items():
            if name.startswith(State.APP_PREFIX):
                scopes.app[name.removeprefix(State.APP_PREFIX)] = value
            elif name.startswith(State.USER_PREFIX):
                scopes.user[name.removeprefix(State.USER_PREFIX)] = value
            elif not name.startswith(State.TEMP_PREFIX):
                scopes.session[name] = value
        return scopes


def state_in(saved: SavedState | None) -> dict[str, Any]:
    """The state that was stored; none where nothing was."""
    return {} if saved is None else dict(saved.context["state"])


def merged(session: dict[str, Any], app: dict[str, Any], user: dict[str, Any]) -> dict[str, Any]:
    """The state as an agent sees it."""
    return {
        **session,
        **{State.APP_PREFIX + name: value for name, value in app.items()},
        **{State.USER_PREFIX + name: value for name, value in user.items()},
    }


def plain(state: dict[str, Any]) -> dict[str, Any]:
    """A state as JSON, as ADK makes it: what JSON cannot hold becomes a description, and a warning is logged."""
    try:
        made: dict[str, Any] = to_jsonable_python(state)
    except PydanticSerializationError:
        made = EventActions(state_delta=state).model_dump(mode="json")["state_delta"]
    return made


def dumped_event(event: Event) -> tuple[dict[str, Any], dict[str, Any]]:
    """An event as JSON without temporary state, and the change of state in it."""
    dumped = event.model_dump(mode="json", exclude_none=True)
    # Not the dumped one, in which what is no number of JSON's became nothing: it is to be refused.
    delta = plain(event.actions.state_delta)
    delta = {name: value for name, value in delta.items() if not name.startswith(State.TEMP_PREFIX)}
    dumped["actions"]["state_delta"] = delta
    return dumped, delta


def message_of(event: dict[str, Any], stamp: dict[str, Any]) -> dict[str, Any]:
    """An event as a message: one that says nothing but a text as that text, to be read and searched; any other whole."""
    author = event["author"]
    message = {
        "role": "user" if author == "user" else "assistant",
        "agent_id": None if author == "user" else author,
        "message_id": event["id"],
        "content": event,
        "metadata": stamp,
    }
    match event.get("content"):
        case {"parts": [{"text": str(text), **others}], **beside} if not others and beside.keys() <= {"role"}:
            rest = {**event, "content": beside}
            if len(json.dumps(rest)) <= _MOST_BESIDE:
                message |= {"content": text, "metadata": {**stamp, "event": rest}}
    return message


def event_of(message: Message) -> Event:
    """The event that a message stands for."""
    event = message.content
    if isinstance(event, str):
        rest = message.metadata["event"]
        event = {**rest, "content": {**rest["content"], "parts": [{"text": event}]}}
    # Bytes are base64 in JSON only.
    return Event.model_validate_json(json.dumps(event))
