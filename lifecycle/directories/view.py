"""What is on disk for one agent: which sessions its index and its transcripts make."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lifecycle.directories.index import Index
from lifecycle.directories.layout import Agent, Facts, Listing, facts_of, kind_of, session_of


@dataclass
class DiskSession:
    """A session as it is on disk: its entries by key, and its transcripts by name. Without a key it is an orphan."""

    session_id: str
    entries: dict[str, dict[str, Any]]
    digest: str = ""
    files: dict[str, Facts] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        """Its keys, in the order of the index."""
        return list(self.entries)

    @property
    def kind(self) -> str:
        """What its keys make it."""
        return kind_of(self.entries)

    @property
    def orphan(self) -> bool:
        """Whether no key points at it."""
        return not self.entries

    @property
    def touched(self) -> float | None:
        """When something last happened in it, in seconds since 1970; None where nothing tells."""
        times = [facts.mtime_ns / 1e9 for facts in self.files.values()]
        for entry in self.entries.values():
            times += _times(entry, "updatedAt", "lastInteractionAt")
        if not times:
            times = [at for entry in self.entries.values() for at in _times(entry, "sessionStartedAt")]
        return max(times, default=None)


@dataclass
class View:
    """The sessions of one agent, and the overrides of transcripts that could not be followed."""

    agent: Agent
    sessions: dict[str, DiskSession]
    refused: list[tuple[str, str]]

    def forget_entries(self) -> None:
        """Keep the keys only: an index of 100 MB need not stay in memory until it changes."""
        for session in self.sessions.values():
            session.entries = {key: {} for key in session.entries}


def view(agent: Agent, root: Path, index: Index, listed: Listing) -> View:
    """Join index and listing. A transcript belongs to the session that names it in `sessionFile`, else to its name's."""
    found = View(agent, {}, [])
    claimed: dict[str, str] = {}
    for session_id, entries in index.sessions.items():
        found.sessions[session_id] = DiskSession(session_id, entries, index.digest(session_id))
        for key, entry in entries.items():
            name = _override(agent, root, entry.get("sessionFile"), found, key)
            if name is not None:
                claimed[name] = session_id
    for name, facts in listed.transcripts.items():
        owner = claimed.pop(name, None) or session_of(name)
        session = found.sessions.setdefault(owner, DiskSession(owner, {}))
        session.files[name] = facts
    for name, owner in claimed.items():
        _add_if_there(agent, found.sessions[owner], name)
    for session in found.sessions.values():
        # One that was made between the two looks.
        if not session.files:
            _add_if_there(agent, session, f"{session.session_id}.jsonl")
    return found


def path_of(agent: Agent, name: str) -> Path:
    """The file behind the name of a transcript: below the agent's directory, or absolute."""
    return agent.path / name


def ordered(session: DiskSession) -> list[str]:
    """The names of its transcripts: its own before those of its topics."""
    own = f"{session.session_id}.jsonl"
    return sorted(session.files, key=lambda name: (name != own, name))


def _add_if_there(agent: Agent, session: DiskSession, name: str) -> None:
    try:
        session.files[name] = facts_of(path_of(agent, name).stat())
    except (OSError, ValueError):
        return


def _override(agent: Agent, root: Path, value: Any, found: View, key: str) -> str | None:
    """The name of the transcript that an entry points at; None where it points nowhere that is ours to touch."""
    if value is None:
        return None
    if not isinstance(value, str) or not value.endswith(".jsonl") or "\x00" in value:
        found.refused.append((key, f"sessionFile {value!r} is no transcript's path"))
        return None
    path = agent.path / value
    resolved, own = path.resolve(), agent.path.resolve()
    if resolved.parent == own:
        return path.name
    # What lies with another agent is his, whoever names it: the index was copied along with its directory.
    elsewhere = resolved.is_relative_to((root / "agents").resolve()) and not resolved.is_relative_to(own.parent)
    if resolved.is_relative_to(root.resolve()) and not elsewhere:
        return str(resolved)
    # A root that was moved or is mounted elsewhere: the file by that name beside the index is the one meant.
    if (agent.path / path.name).exists():
        return path.name
    found.refused.append(
        (key, f"sessionFile {value!r} is {'with another agent' if elsewhere else f'outside of {root}'}")
    )
    return None


def _times(entry: dict[str, Any], *names: str) -> list[float]:
    """The times in an entry, which has them in milliseconds since 1970, in seconds."""
    found = [entry.get(name) for name in names]
    return [at / 1000 for at in found if isinstance(at, int | float) and not isinstance(at, bool) and at > 0]


def total_bytes(files: Iterable[Facts]) -> int:
    """The bytes in files."""
    return sum(facts.size for facts in files)
