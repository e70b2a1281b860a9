"""Session directories for tests: generated like those that agents write, with a count of their own."""

import json
import os
import random
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KINDS = ("chat", "cron", "run", "subagent", "hook")


def key_for(kind: str, agent: str, name: str) -> str:
    """A key of a kind."""
    return {
        "chat": f"agent:{agent}:telegram:group:{name}",
        "cron": f"agent:{agent}:cron:{name}",
        "run": f"agent:{agent}:cron:job:run:{name}",
        "subagent": f"agent:{agent}:subagent:{name}",
        "hook": f"hook:{name}",
    }[kind]


def entry(session_id: str, *, age: float = 0.0, **more: Any) -> dict[str, Any]:
    """An entry of the index, whose session was last used `age` seconds ago."""
    return {"sessionId": session_id, "updatedAt": int((time.time() - age) * 1000), **more}


def header(session_id: str, **more: Any) -> dict[str, Any]:
    """The first line of a transcript."""
    return {"type": "session", "id": session_id, "cwd": "/", "timestamp": "2026-01-01T00:00:00.000Z", **more}


def message(number: int, content: Any = None, *, role: str | None = None, **more: Any) -> dict[str, Any]:
    """An entry that is a message; the content is text unless given."""
    spoken = role or ("user", "assistant", "toolResult")[number % 3]
    said = content if content is not None else f"message {number}: " + "word " * 20
    return {
        "type": "message", "id": f"{number:08x}", "parentId": f"{number - 1:08x}" if number else None,
        "timestamp": "2026-01-01T00:00:01.000Z", "message": {"role": spoken, "content": said}, **more,
    }  # fmt: skip


def dump(path: Path, lines: list[Any], *, torn: str = "", age: float = 0.0) -> Path:
    """Write a transcript: entries, or raw text where a line is a string; `torn` is left without an end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines) + torn
    path.write_text(text, encoding="utf-8")
    backdate(path, age)
    return path


def append(path: Path, *lines: Any, torn: str = "") -> None:
    """Write behind what is there, as agents do."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines) + torn)


def backdate(path: Path, age: float) -> None:
    """Have a file last changed `age` seconds ago."""
    at = time.time() - age
    os.utime(path, (at, at))


def write_index(folder: Path, entries: dict[str, Any]) -> Path:
    """Replace the index as agents do: a temporary file, renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sessions.json"
    temporary = folder / f"sessions.json.{os.getpid()}.{uuid.uuid4().hex}.tmp"
    temporary.write_text(json.dumps(entries, indent=2), encoding="utf-8")
    temporary.rename(path)
    return path


def read_index(folder: Path) -> dict[str, Any]:
    """The index, as any reader has it."""
    found: dict[str, Any] = json.loads((folder / "sessions.json").read_text(encoding="utf-8"))
    return found


@dataclass
class Made:
    """What was generated, by the generator's own count."""

    root: Path
    sessions: int = 0
    keys: int = 0
    messages: int = 0
    orphans: int = 0
    missing: int = 0
    empty: int = 0
    torn: int = 0
    malformed: int = 0
    stale: list[str] = field(default_factory=list)
    by_session: dict[str, int] = field(default_factory=dict)
    """Messages by the id in the database."""
    kinds: dict[str, int] = field(default_factory=dict)

    def folder(self, agent: str) -> Path:
        """Where an agent's sessions are."""
        return self.root / "agents" / agent / "sessions"


def generate(root: Path, *, sessions: int, agents: int, messages: int = 5, padding: int = 0, seed: int = 1) -> Made:
    """Make a root with so many keyed sessions, and beside them orphans, torn lines, duplicate keys and what else occurs.

    `messages` is the mean number of messages, `padding` the bytes of a field that only the index has.
    """
    rng = random.Random(seed)
    made = Made(root)
    for a in range(agents):
        agent = f"agent{a:02}"
        folder = made.folder(agent)
        folder.mkdir(parents=True)
        index: dict[str, Any] = {}
        count = sessions // agents + (a < sessions % agents)
        for s in range(count):
            _session(rng, made, agent, folder, index, s, messages, padding)
        for o in range(count // 10):
            session_id = str(uuid.UUID(int=rng.getrandbits(128)))
            lines = [header(session_id), *(message(i) for i in range(2))]
            dump(folder / f"{session_id}.jsonl", lines, age=7200 if o % 2 else 60)
            made.orphans += 1
            made.messages += 2
            made.by_session[f"{agent}:{session_id}"] = 2
        made.keys += len(index)
        write_index(folder, index)
    return made


def _session(
    rng: random.Random, made: Made, agent: str, folder: Path, index: dict[str, Any], s: int, messages: int, padding: int
) -> None:
    session_id = str(uuid.UUID(int=rng.getrandbits(128)))
    kind = "chat" if s == 0 else KINDS[s % len(KINDS)]
    stale = s != 0 and rng.random() < 0.3
    age = 86_400.0 if stale else 30.0
    more: dict[str, Any] = {"totalTokens": s, "unknownField": {"kept": [s, 1.5]}}
    if padding:
        more["skillsSnapshot"] = "x" * padding
    key = f"agent:{agent}:main" if s == 0 else key_for(kind, agent, f"{s}-{session_id[:8]}")
    index[key] = entry(session_id, age=age, **more)
    if s % 25 == 7:  # a second key for the same session
        index[key_for(kind, agent, f"{s}-again")] = entry(session_id, age=age, **more)
    made.sessions += 1
    made.kinds[kind] = made.kinds.get(kind, 0) + 1
    if stale:
        made.stale.append(session_id)
    name = f"{agent}:{session_id}"
    if s % 31 == 5:
        made.missing += 1
        made.by_session[name] = 0
        return
    spoken = 0 if s % 29 == 3 else max(1, round(rng.expovariate(1 / messages)))
    made.empty += spoken == 0
    lines: list[Any] = [header(session_id), *(message(i) for i in range(spoken))]
    if s % 41 == 9:
        lines.insert(1, '{"type": "message", "id": "broken')
        made.malformed += 1
    torn = ""
    if s % 17 == 4:
        torn = '{"type": "message", "id": "torn", "mess'
        made.torn += 1
    dump(folder / f"{session_id}.jsonl", lines, torn=torn, age=age)
    made.messages += spoken
    made.by_session[name] = spoken
