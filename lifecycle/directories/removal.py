"""Taking sessions off the disk: their keys out of the index, their transcripts into the archive."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from lifecycle.directories import intents, layout
from lifecycle.directories.index import read_index
from lifecycle.directories.layout import Agent, BrokenIndex
from lifecycle.directories.locking import clear_abandoned, locked
from lifecycle.directories.replacement import clear_leftovers, replace, sync_directory
from lifecycle.directories.view import DiskSession, View, path_of, view
from lifecycle.errors import Conflict

_ATTEMPTS: Final = 200

Choice = Callable[[View], Iterable[DiskSession]]
"""Says of the present state of an agent's directory what is to go. It is asked anew whenever that state changed."""


@dataclass
class Removed:
    """What became of sessions: their keys, and how many transcripts were archived; by session id."""

    keys: dict[str, list[str]] = field(default_factory=dict)
    archived: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


def remove(root: Path, agent: Agent, choose: Choice, *, timeout: float) -> Removed:
    """Remove the sessions that `choose` picks, under the lock.

    Keys that another process wrote are never lost: it is re-read under the lock, cut and exchanged against exactly the
    version that was read, and done over if another one is there. Raises `Conflict` when the lock is not to be had,
    `BrokenIndex`, OSError.
    """
    removed = Removed()
    with locked(agent.index_file, timeout):
        clear_leftovers(agent.index_file)
        _finish(root, agent, removed)
        index = read_index(agent.index_file)
        for _ in range(_ATTEMPTS):
            chosen = list(choose(view(agent, root, index, layout.listing(agent))))
            if not chosen:
                intents.clear(agent)  # an attempt before may have noted what is not to go any more
                return removed
            if index.facts is None:
                raise BrokenIndex(f"{agent.index_file} is missing: without it every session looks like an orphan")
            keys = {key for one in chosen for key in one.keys}
            files = {one.session_id: list(one.files) for one in chosen}
            intents.write(agent, files)
            if not keys or replace(agent.index_file, index.without(keys), index.facts):
                break
            intents.clear(agent)
            index = read_index(agent.index_file)
        else:
            intents.clear(agent)
            raise Conflict(f"{agent.index_file} was changed by another process at each of {_ATTEMPTS} attempts")
        removed.keys |= {one.session_id: one.keys for one in chosen}
        # As it is now: what was taken up again meanwhile, or belongs to a session that stays, keeps its transcripts.
        staying = _staying(root, agent)
        for session_id, names in files.items():
            if session_id in staying:
                removed.errors.append(f"{session_id}: its key was written again; its transcript stays")
                removed.keys.pop(session_id, None)
                continue
            _archive(agent, session_id, [name for name in names if name not in staying], removed)
        sync_directory(agent.path)
        intents.clear(agent)
    return removed


def finish(root: Path, agent: Agent, *, timeout: float) -> Removed:
    """Finish what a removal that was killed left."""
    if intents.read(agent):
        return remove(root, agent, lambda _: (), timeout=timeout)
    clear_abandoned(agent.index_file, timeout)
    return Removed()


def _finish(root: Path, agent: Agent, removed: Removed) -> None:
    pending = intents.read(agent)
    if not pending:
        return
    index = read_index(agent.index_file)
    if index.facts is None:
        return  # nothing tells who stays: until there is one again
    staying = _staying(root, agent)
    for session_id, files in pending.items():
        if session_id not in staying:
            names = [name for name in files if name not in staying and _is_ours(root, agent, name)]
            _archive(agent, session_id, names, removed)
    sync_directory(agent.path)
    intents.clear(agent)


def _is_ours(root: Path, agent: Agent, name: str) -> bool:
    """Whether a name in a note, which anybody who may write there may have put into it, is a transcript of the root's."""
    return name.endswith(".jsonl") and path_of(agent, name).resolve().is_relative_to(root.resolve())


def _staying(root: Path, agent: Agent) -> set[str]:
    """The sessions that have a key now, and the names of their transcripts."""
    found = view(agent, root, read_index(agent.index_file), layout.listing(agent)).sessions.values()
    return {name for one in found if not one.orphan for name in (one.session_id, *one.files)}


def _archive(agent: Agent, session_id: str, files: list[str], removed: Removed) -> None:
    at = datetime.now(UTC)
    for name in files:
        path = path_of(agent, name)
        target = path.with_name(layout.archive_name(path.name, "deleted", at))
        while target.exists():
            at += timedelta(milliseconds=1)
            target = path.with_name(layout.archive_name(path.name, "deleted", at))
        try:
            path.rename(target)
        except FileNotFoundError:
            continue
        except OSError as error:
            removed.errors.append(f"{session_id}: {path} cannot be archived: {error.strerror}")
            continue
        removed.archived[session_id] = removed.archived.get(session_id, 0) + 1
        if path.parent != agent.path:
            with suppress(OSError):
                sync_directory(path.parent)
