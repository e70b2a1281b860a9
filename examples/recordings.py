"""Recorded agent runs, and the sessions to be made of them: the same ones for the same files and seed."""

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

Entry = dict[str, Any]


@dataclass(frozen=True)
class Fate:
    """What becomes of a session: the kind it is of, how the replay leaves it, and how the worker does in the end."""

    name: str
    kind: str
    left: str
    settled: str


# The kinds have policies of their own in replay.yaml: chats expire soon, what cron did is pruned soon.
FATES: Final = (
    Fate("finished", "copilot", "completed", "completed"),
    Fate("failed", "copilot", "ended", "ended"),
    Fate("paused", "copilot", "completed", "completed"),
    Fate("old", "cron", "completed", "pruned"),
    Fate("abandoned", "chat", "active", "expired"),
)


@dataclass(frozen=True)
class Step:
    """One step of a run, as the calls take it: the messages of `add_messages`, and what `save_state` is given."""

    record: Any
    messages: list[Entry]
    state: dict[str, Any]


@dataclass(frozen=True)
class Replay:
    """A session to be: its id, the steps it gets, what becomes of it, and after which step it waits for its user."""

    session_id: str
    title: str
    steps: list[Step]
    fate: Fate
    pause: int | None


def replays(files: Iterable[Path], copies: int, seed: int) -> Iterator[Replay]:
    """The sessions that the files make, `copies` of each."""
    for file in files:
        steps = read(file)
        for copy in range(copies):
            chance = random.Random(f"{seed}/{file.stem}/{copy}")
            fate = chance.choice(FATES)
            last = chance.randint(1, len(steps)) if fate.name == "abandoned" else len(steps)
            pause = chance.randint(1, max(1, last - 1)) if fate.name == "paused" else None
            yield Replay(f"replay-{seed}-{file.stem}-{copy}", file.stem, steps[:last], fate, pause)


def read(file: Path) -> list[Step]:
    """The steps of a recorded run: its trajectory's, or where it has none the turns of its history."""
    recorded = json.loads(file.read_bytes())
    turns = _turns(recorded.get("history") or [])
    records = recorded.get("trajectory") or turns
    steps = []
    for number, record in enumerate(records, 1):
        # The last step has whatever was said from then on.
        mine = turns[number - 1 :] if number == len(records) else turns[number - 1 : number]
        steps.append(_step(number, record, [entry for turn in mine for entry in turn]))
    return steps


def _turns(history: list[Entry]) -> list[list[Entry]]:
    """The history in turns of the agent: what it said, and what it heard until it spoke again."""
    turns: list[list[Entry]] = []
    spoke = True
    for entry in history:
        speaks = entry["role"] == "assistant"
        if spoke and (speaks or not turns):
            turns.append([])
            spoke = False
        spoke = spoke or speaks
        turns[-1].append(entry)
    return turns


def _step(number: int, record: Any, said: list[Entry]) -> Step:
    source = record if isinstance(record, dict) else next(entry for entry in said if entry["role"] == "assistant")
    action = source.get("action") or ""
    return Step(
        record,
        [_message(f"{number}-{place}", entry) for place, entry in enumerate(said)],
        {
            "append": [record],
            "context": {"environment": source.get("state"), "action": action},
            "plan": source.get("thought"),
            "phase": (action.split() or ["thinking"])[0][:50],
            "step": number,
            "token": f"step-{number}",
        },
    )


def _message(message_id: str, entry: Entry) -> Entry:
    return {
        "role": entry["role"],
        "content": entry["content"],
        "agent_id": entry.get("agent"),
        "metadata": {name: value for name, value in entry.items() if name not in {"role", "content", "agent"}},
        "message_id": message_id,
    }
