"""Bringing sessions and messages from disk into the database, and only what changed.

The database is read before the disk: a session that is in the database and not on disk afterwards has vanished.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lifecycle import states
from lifecycle.directories import layout
from lifecycle.directories.drafts import ACTOR, Draft
from lifecycle.directories.index import Index, read_index
from lifecycle.directories.intake import Intake, Interrupted
from lifecycle.directories.layout import Agent, BrokenIndex, Facts, Listing
from lifecycle.directories.records import Record, record_in
from lifecycle.directories.reports import SyncProblem, SyncReport
from lifecycle.directories.tally import Tally
from lifecycle.directories.view import DiskSession, View, view
from lifecycle.errors import Conflict, InvalidArgument, InvalidTransition, NotFound

if TYPE_CHECKING:
    from lifecycle.manager.blocking import SessionManager

# Sessions that are made in one transaction, and the bytes of transcripts that make it full.
_PORTION: Final = 100
_PORTION_BYTES: Final = 2_000_000
# Between two looks at what the database has of a root.
_ROUNDS: Final = 20
_REFUSALS: Final = (Conflict, InvalidArgument, NotFound, OSError, RecursionError)
_OPEN: Final = (*states.LIVE, "expired")

Progress = Callable[[int, int], None]


@dataclass
class _Agent:
    """What is known of an agent between two rounds."""

    records: dict[str, Record]
    index: Facts | None = None
    broken: bool = False
    disk: View | None = None
    settled: bool = False
    """Whether everything that the disk showed is in the database."""
    files: dict[str, Facts] = field(default_factory=dict)


class Synchronizer:
    """Syncs one root, again and again: what it knows from one round makes the next one cheap, and never wrong."""

    def __init__(self, manager: "SessionManager", root: Path) -> None:
        self.manager = manager
        self.root = root
        self._agents: dict[str, _Agent] | None = None
        self._rounds = 0

    def run(
        self,
        *,
        stop: Callable[[], bool] = lambda: False,
        limit: int | None = None,
        progress: Progress = lambda _done, _total: None,
    ) -> SyncReport:
        """Sync until all is done, `stop` says so, or `limit` sessions were changed.

        Raises `StorageUnavailable` when the database is away, `InvalidArgument` when the root is not there.
        """
        began = time.monotonic()
        tally = Tally()
        # In this order: what another process brings into the database meanwhile is on disk by now.
        known = self._known()
        found = layout.agents(self.root)
        pending = [(agent, known.setdefault(agent.agent_id, _Agent({}))) for agent in found]
        gone = [name for name in known if name not in {agent.agent_id for agent in found}]
        complete = True
        try:
            work = [(agent, memory, self._look(agent, memory, tally)) for agent, memory in pending]
            total = sum(len(changed) for _, _, changed in work)
            intake = Intake(self.manager, self.root, tally, stop)
            for agent, memory, changed in work:
                failed = tally.failed
                complete = self._take_all(intake, agent, memory, changed, limit, lambda: progress(tally.done, total))
                if not complete:
                    break
                complete = self._end_vanished(agent, memory, tally, stop)
                memory.settled = complete and not memory.broken and tally.failed == failed
                if memory.settled and memory.disk is not None:
                    memory.disk.forget_entries()
            for name in gone if complete else ():
                complete = self._end_vanished(None, known[name], tally, stop)
        except BaseException:
            self._agents = None  # what is known may be half true now
            raise
        return self._report(found, known, tally, complete=complete, seconds=time.monotonic() - began)

    def _known(self) -> dict[str, _Agent]:
        self._rounds += 1
        # Another process may have brought something in that vanished before this one saw it.
        if self._agents is None or self._rounds >= _ROUNDS:
            self._agents, self._rounds = {}, 0
            for record in _records(self.manager, str(self.root)):
                self._agents.setdefault(record.agent_id, _Agent({})).records[record.session_id] = record
        return self._agents

    def _look(self, agent: Agent, memory: _Agent, tally: Tally) -> list[DiskSession]:
        """The sessions of an agent that are not as the database has them."""
        try:
            listed = layout.listing(agent)
        except BrokenIndex as error:
            memory.broken = True
            tally.problem(str(agent.path), str(error))
            return []
        if memory.settled and listed.index == memory.index and listed.transcripts == memory.files:
            return []
        memory.settled, memory.files = False, listed.transcripts
        index = self._index(agent, memory, listed, tally)
        if index is None:
            return []
        memory.disk = view(agent, self.root, index, listed)
        tally.malformed += len(index.malformed)
        for key in index.malformed:
            tally.problem(f"{agent.index_file} {key}", "the entry names no session")
        for key, reason in memory.disk.refused:
            tally.problem(f"{agent.index_file} {key}", reason)
        changed = []
        for session_id, disk in memory.disk.sessions.items():
            record = memory.records.get(session_id)
            if record is None or not record.unchanged(disk):
                changed.append(disk)
            else:
                tally.unchanged += 1
        return changed

    def _index(self, agent: Agent, memory: _Agent, listed: Listing, tally: Tally) -> Index | None:
        try:
            index = read_index(agent.index_file)
        except BrokenIndex as error:
            memory.broken = True
            tally.problem(str(agent.index_file), str(error))
            return None
        # Without an index, keys are not gone: it may be between two versions, or be restored.
        memory.broken = index.facts is None and any(record.keys for record in memory.records.values())
        if memory.broken:
            tally.problem(str(agent.index_file), "is missing; sessions without a transcript are left as they are")
        memory.index = index.facts
        if listed.index is not None and index.facts is not None:
            tally.indexes_opened += 1
            tally.index_bytes += index.facts.size
        return index

    def _take_all(
        self,
        intake: Intake,
        agent: Agent,
        memory: _Agent,
        changed: list[DiskSession],
        limit: int | None,
        show: Callable[[], None],
    ) -> bool:
        """Take in what changed, new sessions by the hundred; whether it came to all of them."""
        portion: list[Draft] = []
        size = 0
        for disk in changed:
            if limit is not None and intake.tally.changed + len(portion) >= limit:
                break
            new = self._drafted(intake, agent, memory, disk)
            if new is not None:
                portion.append(new)
                size += new.size
            if len(portion) >= _PORTION or size > _PORTION_BYTES:
                self._store(intake, memory, portion)
                portion, size = [], 0
            show()
            if intake.stop():
                break
        else:
            self._store(intake, memory, portion)
            show()
            return not intake.stopped
        self._store(intake, memory, portion)
        return False

    def _drafted(self, intake: Intake, agent: Agent, memory: _Agent, disk: DiskSession) -> Draft | None:
        """A new session to be made with others; None for one that was taken in by itself."""
        if disk.session_id not in memory.records:
            try:
                new = intake.draft(agent, disk)
            except _REFUSALS as error:
                self._refused(intake, agent, memory, disk, error)
                return None
            if new.second is None:
                return new
        self._take_in(intake, agent, memory, disk)
        return None

    def _store(self, intake: Intake, memory: _Agent, portion: list[Draft]) -> None:
        if not portion:
            return
        for new, record in zip(portion, intake.take_new(portion), strict=True):
            if record is None:
                self._take_in(intake, new.agent, memory, new.disk)
            else:
                memory.records[new.disk.session_id] = record
                intake.tally.done += 1

    def _take_in(self, intake: Intake, agent: Agent, memory: _Agent, disk: DiskSession) -> None:
        try:
            memory.records[disk.session_id] = intake.take(agent, disk, memory.records.get(disk.session_id))
        except Interrupted:
            memory.records.pop(disk.session_id, None)
            return
        except _REFUSALS as error:
            self._refused(intake, agent, memory, disk, error)
            return
        intake.tally.done += 1

    def _refused(self, intake: Intake, agent: Agent, memory: _Agent, disk: DiskSession, error: BaseException) -> None:
        """Note what speaks against one session. It is tried again in the next round; the others go on."""
        memory.records.pop(disk.session_id, None)
        intake.tally.done += 1
        intake.tally.failed += 1
        intake.tally.problem(f"{agent.agent_id}: session {disk.session_id}", str(error))

    def _end_vanished(self, agent: Agent | None, memory: _Agent, tally: Tally, stop: Callable[[], bool]) -> bool:
        """End what is not on disk any more; whether it came to all of them."""
        if agent is not None and (memory.settled or memory.broken):
            return True
        there = memory.disk.sessions if agent is not None and memory.disk is not None else {}
        for session_id, record in list(memory.records.items()):
            if session_id in there:
                continue
            if stop():
                return False
            if record.state in states.LIVE:
                try:
                    end(self.manager, record.agent_id, session_id, record.life, "vanished from its directory")
                except Conflict as error:
                    tally.failed += 1
                    tally.problem(f"{record.agent_id}: session {session_id}", str(error))
                    continue
                tally.ended += 1
            del memory.records[session_id]
        return True

    def _report(
        self, found: list[Agent], known: dict[str, _Agent], tally: Tally, *, complete: bool, seconds: float
    ) -> SyncReport:
        views = [known[agent.agent_id].disk for agent in found]
        sessions = [one for each in views if each is not None for one in each.sessions.values()]
        return SyncReport(
            root=str(self.root),
            agents=len(found),
            sessions=len(sessions),
            created=tally.created,
            updated=tally.updated,
            unchanged=len(sessions) - tally.changed - tally.failed if complete else tally.unchanged,
            ended=tally.ended,
            failed=tally.failed,
            orphans=sum(one.orphan for one in sessions),
            messages=tally.messages,
            transcripts_opened=tally.transcripts_opened,
            transcript_bytes=tally.transcript_bytes,
            indexes_opened=tally.indexes_opened,
            index_bytes=tally.index_bytes,
            malformed=tally.malformed,
            torn=tally.torn,
            problem_count=tally.problem_count,
            problems=[SyncProblem(where=where, reason=reason) for where, reason in tally.problems],
            complete=complete,
            seconds=round(seconds, 3),
        )


def end(manager: "SessionManager", agent_id: str, session_id: str, life: int, reason: str) -> bool:
    """End a session of the database; whether it has it, as finished. Raises `StorageUnavailable`."""
    try:
        manager.end_session(layout.database_id(agent_id, session_id, life), reason=reason, actor=ACTOR)
    except NotFound:
        return False
    except InvalidTransition:
        return True  # it is finished in another way
    return True


def _records(manager: "SessionManager", root: str) -> list[Record]:
    """The records of a root's sessions that are not finished for good."""
    from lifecycle.models import tables as t

    found: list[Record] = []
    cursor: str | None = None
    size = manager.settings.limits.page_size
    where = t.sessions.c.state.in_(_OPEN)
    while True:
        page: Any = manager.list_sessions(where=where, sort="session_id", order="asc", limit=size, cursor=cursor)
        records = [record_in(session) for session in page.items]
        found += [record for record in records if record is not None and record.root == root]
        cursor = page.next_cursor
        if cursor is None:
            return found
