"""Names on disk and in the database: keys, transcripts, archives, ids."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from lifecycle.errors import InvalidArgument

INDEX: Final = "sessions.json"
KINDS: Final = ("chat", "cron", "subagent", "hook", "run")
"""What a key can be, and of several keys of one session the first that it has is the session's."""

_TRANSCRIPT: Final = re.compile(r"(?P<session>.+?)(?:-topic-(?P<topic>.+))?\.jsonl", re.DOTALL)
_ARCHIVE: Final = re.compile(r"(?P<transcript>.+\.jsonl)\.(?P<why>deleted|reset)\.(?P<at>.+)", re.DOTALL)
_STAMP: Final = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d)[-:](\d\d)[-:](\d\d)(\.\d+)?Z?")
_RUN_PARTS: Final = 4


class BrokenIndex(InvalidArgument):
    """A `sessions.json` that is no JSON object, or cannot be read; nothing is removed by it and nothing ended."""


class Facts(NamedTuple):
    """A file as the directory tells of it: which one, how large (bytes), changed when (nanoseconds since 1970)."""

    inode: int
    size: int
    mtime_ns: int


class Agent(NamedTuple):
    """An agent and the directory of its sessions."""

    agent_id: str
    path: Path

    @property
    def index_file(self) -> Path:
        """The file with its keys."""
        return self.path / INDEX


@dataclass
class Listing:
    """The files of one agent's directory, by name."""

    transcripts: dict[str, Facts] = field(default_factory=dict)
    archives: dict[str, Facts] = field(default_factory=dict)
    index: Facts | None = None
    other_bytes: int = 0


def agents(root: Path) -> list[Agent]:
    """The agents below a root, by name. Raises `InvalidArgument` where there is no `agents` directory."""
    folder = root / "agents"
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        raise InvalidArgument(
            f"root: {root} is no session directory: {folder} cannot be read ({error.strerror}); "
            "name the directory that holds agents/<agentId>/sessions/"
        ) from error
    found = [Agent(name, folder / name / "sessions") for name in names]
    return [agent for agent in found if _is_there(agent)]


def _is_there(agent: Agent) -> bool:
    try:
        return agent.path.is_dir()
    except OSError:
        return True  # it cannot be looked into: whoever does says so, and goes on with the others


def listing(agent: Agent) -> Listing:
    """What is in an agent's directory now; nothing where it is gone. Raises `BrokenIndex` where it cannot be read."""
    found = Listing()
    try:
        with os.scandir(agent.path) as entries:
            for entry in entries:
                _note(found, entry)
    except FileNotFoundError:
        return Listing()
    except OSError as error:
        raise BrokenIndex(f"{agent.path} cannot be read: {error.strerror}") from error
    return found


def _note(found: Listing, entry: "os.DirEntry[str]") -> None:
    try:
        if not entry.is_file():
            return
        status = entry.stat()
    except FileNotFoundError:  # it went while we looked
        return
    facts = facts_of(status)
    if entry.name == INDEX:
        found.index = facts
    elif entry.name.endswith(".jsonl"):
        found.transcripts[entry.name] = facts
    elif _ARCHIVE.fullmatch(entry.name):
        found.archives[entry.name] = facts
    else:
        found.other_bytes += facts.size


def facts_of(status: os.stat_result) -> Facts:
    """What of a file's status tells one version of it from another."""
    return Facts(status.st_ino, status.st_size, status.st_mtime_ns)


def session_of(transcript: str) -> str:
    """The session a transcript is named for: `<sessionId>.jsonl` or `<sessionId>-topic-<threadId>.jsonl`."""
    match = _TRANSCRIPT.fullmatch(transcript)
    return match["session"] if match else transcript


def kind_of(keys: Iterable[str]) -> str:
    """The kind of a session with these keys: chat, cron, subagent, hook or run; chat without any."""
    kinds = {_kind(key) for key in keys}
    return next((kind for kind in KINDS if kind in kinds), "chat")


def _kind(key: str) -> str:
    parts = key.split(":")
    if parts[0] == "agent":
        parts = parts[2:]
    match parts:
        case ["cron", *_]:
            return "run" if len(parts) >= _RUN_PARTS and parts[-2] == "run" else "cron"
        case ["subagent" | "hook" as kind, *_]:
            return kind
        case _:
            return "chat"


def database_id(agent_id: str, session_id: str, life: int = 1) -> str:
    """The id in the database: `<agentId>:<sessionId>`, and `~2` and so on behind it for one that came back.

    What would make two of them alike is written as in URLs: a colon of the agent's as %3A, a tilde as %7E.
    """
    agent = agent_id.replace("%", "%25").replace(":", "%3A")
    session = session_id.replace("%", "%25").replace("~", "%7E")
    return f"{agent}:{session}" + (f"~{life}" if life > 1 else "")


def archive_name(transcript: str, why: str, at: datetime) -> str:
    """The name of a transcript that was removed: `<name>.deleted.2026-11-21T07-00-00.000Z`."""
    stamp = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z").replace(":", "-")
    return f"{transcript}.{why}.{stamp}"


def archived_at(name: str, facts: Facts) -> float:
    """When a file was archived (seconds since 1970): as its name says, else when it was last changed."""
    match = _ARCHIVE.fullmatch(name)
    stamp = _STAMP.fullmatch(match["at"]) if match else None
    if stamp:
        day, hours, minutes, seconds, fraction = stamp.groups()
        try:
            return datetime.fromisoformat(f"{day}T{hours}:{minutes}:{seconds}+00:00").timestamp() + float(fraction or 0)
        except ValueError:
            pass
    return facts.mtime_ns / 1e9
