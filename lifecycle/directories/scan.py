"""What is on disk, counted."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from lifecycle.directories import layout
from lifecycle.directories.index import Index, read_index
from lifecycle.directories.layout import Agent, BrokenIndex, Listing
from lifecycle.directories.reports import AgentScan, ScanReport
from lifecycle.directories.view import DiskSession, path_of, total_bytes, view

Progress = Callable[[int, int], None]

_MESSAGE: Final = re.compile(rb'"type"\s*:\s*"message"')


def scan(root: Path, *, progress: Progress = lambda _done, _total: None) -> ScanReport:
    """Count what is below a root. Raises `InvalidArgument` when it is no session directory.

    Of a transcript only so much is read as it takes to find its first message.
    """
    began = time.monotonic()
    found = []
    agents = layout.agents(root)
    for done, agent in enumerate(agents):
        found.append(_agent(root, agent))
        progress(done + 1, len(agents))
    total = _sum(found)
    return ScanReport(root=str(root), agents=found, total=total, seconds=round(time.monotonic() - began, 3))


def _agent(root: Path, agent: Agent) -> AgentScan:
    listed, index, problem = Listing(), Index(None, "{}", []), None
    try:
        listed = layout.listing(agent)
        index = read_index(agent.index_file)
    except BrokenIndex as error:
        problem = str(error)
    sessions = view(agent, root, index, listed).sessions.values()
    keyed = [one for one in sessions if not one.orphan]
    # Of an index that cannot be read nobody knows what it points at.
    orphans = [one for one in sessions if one.orphan] if problem is None else []
    kinds: dict[str, int] = {}
    for one in keyed:
        kinds[one.kind] = kinds.get(one.kind, 0) + 1
    return AgentScan(
        agent=agent.agent_id,
        sessions=len(keyed),
        kinds=dict(sorted(kinds.items())),
        keys=len({member.key for member in index.members}),
        index_bytes=listed.index.size if listed.index else 0,
        transcripts=len(listed.transcripts),
        transcript_bytes=total_bytes(listed.transcripts.values()),
        orphans=sum(len(one.files) for one in orphans),
        orphan_bytes=sum(total_bytes(one.files.values()) for one in orphans),
        missing=sum(not one.files for one in keyed),
        empty=sum(_is_empty(agent, one) for one in sessions),
        archives=len(listed.archives),
        archive_bytes=total_bytes(listed.archives.values()),
        malformed=len(index.malformed),
        problem=problem,
    )


def _is_empty(agent: Agent, session: DiskSession) -> bool:
    return bool(session.files) and not any(_has_message(path_of(agent, name)) for name in session.files)


def _has_message(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return any(_MESSAGE.search(line) and _is_message(line) for line in file)
    except OSError:
        return True  # what cannot be looked at is not called empty


def _is_message(line: bytes) -> bool:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("type") == "message"


def _sum(found: list[AgentScan]) -> AgentScan:
    values: dict[str, Any] = {"agent": "all", "problem": None, "kinds": {}}
    for name in AgentScan.model_fields:
        if name not in values:
            values[name] = sum(getattr(one, name) for one in found)
    for one in found:
        for kind, count in one.kinds.items():
            values["kinds"][kind] = values["kinds"].get(kind, 0) + count
    return AgentScan(**values)
