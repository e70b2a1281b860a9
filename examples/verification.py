"""Compares what a store holds of a replay with the files it was made from."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from examples.recordings import Entry, Replay
from lifecycle import SessionManager


class Verification:
    """What came of the sessions of a replay: how many of a fate are in which state, and what is not as it should be."""

    def __init__(self) -> None:
        self.states: dict[str, Counter[str]] = {}
        self.waiting = 0
        self.compared = 0
        self.wrong: list[str] = []

    def check(self, manager: SessionManager, replays: Iterable[Replay]) -> None:
        """Compare each session: its state with its fate, its steps and messages with the file's."""
        for replay in replays:
            state = state_of(manager, replay.session_id)
            self.states.setdefault(replay.fate.name, Counter())[state] += 1
            if state not in {replay.fate.left, replay.fate.settled}:
                self.wrong.append(f"{replay.session_id}: {state}, not {replay.fate.settled}")
            self.waiting += state == replay.fate.left != replay.fate.settled
            if state == "pruned":
                left = manager.load_state(replay.session_id, any_state=True), manager.get_messages(replay.session_id)
                self.wrong += [f"{replay.session_id}: pruned, but not all of it"] if any(left) else []
            elif state != "missing":
                self.compared += 1
                self.wrong += [f"{replay.session_id}: {what}" for what in differences(manager, replay)]


def state_of(manager: SessionManager, session_id: str) -> str:
    """The session's state; `pruned` when the audit log says so, `missing` when nothing is known of it."""
    session = manager.get_session(session_id)
    if session is not None:
        return session.state
    return "pruned" if was_pruned(manager, session_id) else "missing"


def was_pruned(manager: SessionManager, session_id: str) -> bool:
    """Whether the session was there and its retention is over."""
    return any((record.to_state, record.reason) == (None, "pruned") for record in manager.history(session_id))


def differences(manager: SessionManager, replay: Replay) -> list[str]:
    """What the store has otherwise than the file."""
    found = []
    state = manager.load_state(replay.session_id, any_state=True)
    if state is None:
        return ["no step was saved"]
    if _text(state.conversation) != _text([step.record for step in replay.steps]):
        found.append("its steps differ from the file's")
    last = replay.steps[-1].state
    if _text([state.step, state.phase, state.context, state.plan]) != _text(
        [last["step"], last["phase"], last["context"], last["plan"]]
    ):
        found.append("its last state differs from the file's")
    if _text(_messages(manager, replay.session_id)) != _text([m for step in replay.steps for m in step.messages]):
        found.append("its messages differ from the file's")
    if replay.pause:
        moves = [record.trigger for record in manager.history(replay.session_id)]
        if [moves.count("suspend"), moves.count("resume")] != [1, 1]:
            found.append(f"it was not suspended and resumed once: {', '.join(moves)}")
    return found


def _messages(manager: SessionManager, session_id: str) -> list[Entry]:
    """All messages of a session, as they were added."""
    found: list[Entry] = []
    after: int | None = None
    while page := manager.get_messages(session_id, limit=500, after=after):
        after = page[-1].seq
        found += [
            message.model_dump(include={"role", "content", "agent_id", "metadata", "message_id"}) for message in page
        ]
    return [
        {name: message[name] for name in ("role", "content", "agent_id", "metadata", "message_id")} for message in found
    ]


def _text(value: Any) -> str:
    """The JSON text: what is byte for byte the same has the same keys in the same order, and 1 is not 1.0."""
    return json.dumps(value, ensure_ascii=False)
