"""Taking one session in: its entries as metadata, what its transcripts say as messages.

Every step may be repeated: messages are known by their ids, and what a record says is believed only where the number
of messages agrees. So a process may be killed between any two writes, and two may sync the same session.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lifecycle import states
from lifecycle.directories.drafts import ACTOR, Draft, creation, draft, parent_of, title_of
from lifecycle.directories.entries import Namer, NeedsBeginning, Row, digest, in_pieces
from lifecycle.directories.feed import BATCH_BYTES, batches, note
from lifecycle.directories.layout import Agent, database_id
from lifecycle.directories.records import Record, metadata, record_in
from lifecycle.directories.tally import Tally
from lifecycle.directories.transcripts import Place, Reading, begin
from lifecycle.directories.view import DiskSession, ordered, path_of
from lifecycle.errors import Conflict, InvalidArgument, MessageExists, SessionExists, VersionConflict
from lifecycle.operations.importing import create_sessions

if TYPE_CHECKING:
    from lifecycle.manager.blocking import SessionManager
    from lifecycle.models.reads import Session

_ATTEMPTS: Final = 10
_LIVES: Final = 1000


class Interrupted(Exception):
    """A sync was asked to stop within a session."""


class Intake:
    """Takes sessions of one root into the database."""

    def __init__(
        self, manager: "SessionManager", root: Path, tally: Tally, stop: Callable[[], bool] = lambda: False
    ) -> None:
        self.manager = manager
        self.stop = stop
        self.stopped = False
        self.root = root
        self.tally = tally
        self._limits = manager.settings.limits

    def take(self, agent: Agent, disk: DiskSession, record: Record | None) -> Record:
        """Bring a session up to date, and return what the database knows of it now.

        Raises `StorageUnavailable`, and what speaks against this one session: `Conflict`, `InvalidArgument`, OSError.
        """
        life = 1 if record is None else record.life
        parent: str | None = None
        places: dict[str, Place] = {}
        for _ in range(_LIVES):
            name = database_id(agent.agent_id, disk.session_id, life)
            if record is None:
                made = self._create(
                    draft(self.root, agent, disk, self._limits, life=life, parent=parent, places=places)
                )
                if made is not None:
                    return made
            session = self.manager.get_session(name)
            if session is None:
                record = self._hidden(name) if record is None else None
                continue
            there = self._own(session, name)
            if session.state not in states.TERMINAL or session.state == "expired":
                return self._update(agent, disk, name, session, there)
            if not _grew(disk, there):
                return self._left(disk, there)
            # It goes on after it was finished here: what is new is the next life's.
            record, parent, places, life = None, name, there.places, life + 1
        raise Conflict(f"session {disk.session_id!r} came back more than {_LIVES} times")

    def draft(self, agent: Agent, disk: DiskSession) -> Draft:
        """Read a session that the database does not have. Raises OSError."""
        return draft(self.root, agent, disk, self._limits)

    def take_new(self, drafts: list[Draft]) -> list[Record | None]:
        """Make sessions that were never seen, all in one transaction; None for those that have to be taken by themselves."""
        ready = [creation(one, self._limits) for one in drafts]
        imports = [(values, one.first) for one, (values, _) in zip(drafts, ready, strict=True)]
        manager = self.manager
        made = manager._driver.run(create_sessions(manager._context, imports))  # noqa: SLF001 -- not for users: nobody else imports by the hundred
        for one, (_, left_out), done in zip(drafts, ready, made, strict=True):
            if done:
                self._made(one, len(one.first), left_out)
        return [one.record if done else None for one, done in zip(drafts, made, strict=True)]

    def _create(self, new: Draft) -> Record | None:
        """Make a session with its messages; None if it is there already."""
        values, left_out = creation(new, self._limits)
        try:
            session = self.manager.create_session(**values)
        except SessionExists:
            return None
        sent = self._send(new.name, new.first) if new.first else 0
        if new.second is not None:
            sent += self._send(new.name, new.second) + sum(self._send(new.name, batch) for batch in new.rest)
            note(new.readings, new.record, sent)
        self._made(new, sent, left_out)
        if new.record.messages != sent or new.second is not None:
            new.record.messages = sent
            self._save(new.agent, new.disk, new.name, session, new.record)
        return new.record

    def _made(self, new: Draft, sent: int, left_out: list[str]) -> None:
        new.record.count = sent
        self.tally.created += 1
        self.tally.messages += sent
        self._count(new.readings)
        self._tell(new.name, left_out)

    def _update(self, agent: Agent, disk: DiskSession, name: str, session: "Session", record: Record) -> Record:
        """Add what is new to a session that is there."""
        if record.unchanged(disk):
            return record
        before = record.places if record.trusted else {}
        files = [file for file in ordered(disk) if file not in before or before[file].facts != disk.files[file]]
        readings = {file: begin(path_of(agent, file), before.get(file)) for file in files}
        anew = not record.trusted or any(one.fresh for one in readings.values())
        if len(files) == len(disk.files) and anew:
            record.malformed = 0
        record.places = {file: place for file, place in before.items() if file in disk.files and file not in readings}
        try:
            sent, session = self._add(name, session, readings, self._namer(name, session, anew=anew), record)
        except (MessageExists, NeedsBeginning):
            # An id is taken by something else, or an entry has none: only the whole can tell.
            readings = {file: begin(path_of(agent, file), None) for file in ordered(disk)}
            record.malformed = 0
            sent, session = self._add(name, session, readings, self._namer(name, session, anew=True), record)
        note(readings, record, session.message_count + sent)
        self._count(readings)
        record.keys, record.digest = disk.keys, disk.digest
        self._save(agent, disk, name, session, record)
        self.tally.messages += sent
        self.tally.updated += 1
        return record

    def _add(
        self, name: str, session: "Session", readings: dict[str, Reading], namer: Namer, record: Record
    ) -> tuple[int, "Session"]:
        """Send what the readings give, and say how many messages that were."""
        sent = 0
        for batch in batches(readings, namer, record, self._limits):
            if session.state == "expired":
                session = self.manager.reopen_session(name, reason="goes on in its directory", actor=ACTOR)
            sent += self._send(name, batch)
        return sent, session

    def _namer(self, name: str, session: "Session", *, anew: bool) -> Namer:
        """Names for messages, with those that the session has if any of them may come again."""
        if not anew or not session.message_count:
            return Namer()
        known: dict[str, str] = {}
        pieces: dict[str, int] = {}
        after = 0
        while page := self.manager.get_messages(name, after=after, limit=self._limits.messages_page):
            for message in page:
                says = message.metadata.get("says")
                if "pieces" not in message.metadata or not isinstance(says, str):
                    known[message.message_id] = digest(message.role, message.content)
                    continue
                whole = message.message_id.partition("/")[0] if message.metadata["piece"] > 1 else message.message_id
                pieces[whole] = pieces.get(whole, 0) + 1
                # Cut short by a kill, they are sent again; those that are there do no harm.
                if pieces[whole] == message.metadata["pieces"]:
                    known[whole] = says
            after = page[-1].seq
        return Namer(known)

    def _send(self, name: str, rows: list[Row]) -> int:
        """Add messages; those that cannot be stored as they are, in pieces. How many there were in the end.

        Raises `Interrupted` between two calls: what is in is not read into the database again.
        """
        if self.stop():
            self.stopped = True
            raise Interrupted
        try:
            self.manager.add_messages(name, rows)
        except InvalidArgument:
            if len(rows) > 1:
                middle = len(rows) // 2
                return self._send(name, rows[:middle]) + self._send(name, rows[middle:])
            pieces = list(in_pieces(rows[0], self._limits.message_chars))
            size = min(self._limits.batch_messages, max(1, BATCH_BYTES // self._limits.message_chars))
            for i in range(0, len(pieces), size):
                self.manager.add_messages(name, pieces[i : i + size])
            return len(pieces)
        return len(rows)

    def _save(self, agent: Agent, disk: DiskSession, name: str, session: "Session", record: Record) -> None:
        """Write down how far the session is; what others changed in it meanwhile stays."""
        for _ in range(_ATTEMPTS):
            known, left_out = metadata(record, disk, session.metadata, self._limits.metadata_bytes)
            more: dict[str, Any] = {}
            before = session.metadata.get("entries")
            if not disk.orphan and disk.kind != session.kind:
                more["kind"] = disk.kind
            if (title := title_of(disk.entries, self._limits)) and title != title_of(before, self._limits):
                more["title"] = title
            if session.parent_id is None and (parent := parent_of(agent, record.header)):
                more["parent_id"] = parent
            try:
                session = self.manager.update_session(name, metadata=known, expected_version=session.version, **more)
            except VersionConflict:
                session = self.manager.get_session(name) or session
                continue
            record.state, record.count = session.state, session.message_count
            if record.messages == record.count:
                self._tell(name, left_out)
                return
            # Some were there already. What was read is in, so the number that is true of it is the session's own.
            record.messages = record.count
        raise Conflict(f"session {name!r} was changed by others at each of {_ATTEMPTS} attempts; it is tried again")

    def _own(self, session: "Session", name: str) -> Record:
        """The record of a session, if it came from this root."""
        record = record_in(session)
        if record is None:
            raise Conflict(
                f"the database has a session {name!r} that came from no directory; give the root a tenant of its own"
            )
        if record.root != str(self.root):
            if (Path(record.root) / "agents").is_dir():
                raise Conflict(f"session {name!r} belongs to {record.root}; give this root a tenant of its own")
            # The root was moved.
            record.root, record.digest = str(self.root), "moved"
        return record

    def _hidden(self, name: str) -> Record:
        raise Conflict(f"session {name!r} is soft-deleted in the database; undelete it, or wait until it is removed")

    def _left(self, disk: DiskSession, record: Record) -> Record:
        """The record of a session that is finished here and stands still on disk."""
        record.keys, record.digest, record.messages = disk.keys, disk.digest, record.count
        record.places = {file: record.places[file] for file in disk.files}
        return record

    def _count(self, readings: dict[str, Reading]) -> None:
        for reading in readings.values():
            self.tally.transcripts_opened += 1
            self.tally.transcript_bytes += reading.bytes_read
            self.tally.torn += bool(reading.torn)
            self.tally.malformed += len(reading.problems)
            for problem in reading.problems:
                self.tally.problem(f"{reading.path} byte {problem.offset:,}", problem.reason)

    def _tell(self, name: str, left_out: list[str]) -> None:
        for what in left_out:
            self.tally.problem(name, f"no room in its metadata (limits.metadata_bytes) for {what}")


def _grew(disk: DiskSession, record: Record) -> bool:
    """Whether the transcripts are others than those that were read."""
    return any(file not in record.places or record.places[file].facts != facts for file, facts in disk.files.items())
