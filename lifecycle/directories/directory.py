"""`SessionDirectory`: all that can be done with one root."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lifecycle.directories import layout, removal
from lifecycle.directories.choices import Duration, checked_kinds, lost, seconds, seconds_or_never, stale
from lifecycle.directories.guard import Guard
from lifecycle.directories.index import read_index
from lifecycle.directories.layout import Agent, BrokenIndex
from lifecycle.directories.mirror import Mirror
from lifecycle.directories.reports import (
    DeleteReport,
    Orphan,
    OrphanReport,
    PruneReport,
    RetentionReport,
    ScanReport,
    SyncReport,
)
from lifecycle.directories.retention import retain
from lifecycle.directories.scan import Progress, scan
from lifecycle.directories.view import DiskSession, View, view
from lifecycle.errors import Conflict, FileUnavailable, InvalidArgument, SessionNotFound, SessionProtected
from lifecycle.settings.directories import DirectoriesSettings, parse_size

if TYPE_CHECKING:
    from lifecycle.manager.blocking import SessionManager


def _silent(_done: int, _total: int) -> None:
    pass


class SessionDirectory:
    """A root below which agents keep their sessions in files: `SessionDirectory("~/.openclaw", manager).sync()`.

    Without a manager it works on the disk alone. `manager` may be a function that opens one: a database that is away
    does not keep anything from being removed on disk, and the next sync ends what vanished from it.
    """

    def __init__(
        self,
        root: str | Path,
        manager: "SessionManager | Callable[[], SessionManager] | None" = None,
        settings: DirectoriesSettings | None = None,
    ) -> None:
        self.root = Path(root).expanduser().absolute()
        self.settings = settings or DirectoriesSettings()
        self.mirror = Mirror(manager)

    def scan(self, *, progress: Progress = _silent) -> ScanReport:
        """Count what is on disk, per agent; changes nothing. Raises `InvalidArgument` when the root is no such directory."""
        return scan(self.root, progress=progress)

    def sync(
        self, *, stop: Callable[[], bool] = lambda: False, limit: int | None = None, progress: Progress = _silent
    ) -> SyncReport:
        """Bring what changed on disk into the database, and end what vanished; until `stop`, or `limit` sessions.

        Raises `StorageUnavailable`, `InvalidArgument` when the root is no such directory.
        """
        from lifecycle.directories.sync import Synchronizer

        return Synchronizer(self.mirror.open(), self.root).run(stop=stop, limit=limit, progress=progress)

    def delete(
        self, session_id: str, *, agent: str | None = None, protect: Iterable[str] = (), force: bool = False
    ) -> DeleteReport:
        """Remove a session: its keys, its transcripts (into the archive), and end it in the database.

        `session_id` is the id on disk, a key, or the id in the database. Raises `SessionNotFound`, `SessionProtected`
        unless `force`, `InvalidArgument` when several agents have it and none is named, `Conflict` when the lock of
        the index is not to be had, `FileUnavailable` when the disk refuses.
        """
        owner, found = self._find(session_id, agent)
        guard = self._guard(protect, force=force)
        why = guard.reason(owner.agent_id, found.session_id, found.keys)
        if why is not None:
            error = SessionProtected(found.session_id)
            error.args = (f"session {found.session_id!r} is not removed: {why}; force removes it all the same",)
            raise error

        def choose(now: View) -> Iterable[DiskSession]:
            one = now.sessions.get(found.session_id)
            return [one] if one is not None and not guard.reason(owner.agent_id, one.session_id, one.keys) else []

        try:
            done = removal.remove(self.root, owner, choose, timeout=self.settings.lock_timeout)
        except OSError as error:
            raise FileUnavailable(f"{error.filename or owner.path} cannot be changed: {error.strerror}") from error
        if found.session_id not in done.keys:
            why = "; ".join(done.errors) or "another process changed it meanwhile"
            raise Conflict(f"session {found.session_id!r} is not removed: {why}")
        return DeleteReport(
            deleted=session_id,
            removed_keys=done.keys.get(found.session_id, []),
            transcript_archived=done.archived.get(found.session_id, 0) > 0,
            database_updated=self.mirror.end(owner.agent_id, found.session_id, "deleted from its directory"),
        )

    def prune(
        self,
        max_age: Duration,
        *,
        kinds: Iterable[str] = (),
        protect: Iterable[str] = (),
        force: bool = False,
        dry_run: bool = False,
        progress: Progress = _silent,
    ) -> PruneReport:
        """Remove the sessions in which nothing happened for `max_age` (seconds, or text such as 60m).

        What counts is the latest of `updatedAt`, `lastInteractionAt` and the transcripts' times; without any of them
        `sessionStartedAt`, and without that the session stays. `kinds` are chat, cron, run, subagent and hook; all of
        them unless given. Raises `InvalidArgument`.
        """
        threshold = seconds(max_age, "max_age")
        wanted = checked_kinds(kinds)
        guard = self._guard(protect, force=force)
        deleted: list[str] = []
        errors: list[str] = []
        total = 0
        agents = layout.agents(self.root)
        for done, agent in enumerate(agents):
            before = time.time() - threshold
            choose = partial(stale, before=before, kinds=wanted, guard=guard)
            try:
                if not dry_run:
                    removal.finish(self.root, agent, timeout=self.settings.lock_timeout)
                now = self._view(agent)
                total += sum(not one.orphan for one in now.sessions.values())
                due = [one.session_id for one in choose(now)]
                if not dry_run and due:
                    gone = removal.remove(self.root, agent, choose, timeout=self.settings.lock_timeout)
                    due = list(gone.keys)
                    errors += [f"{agent.agent_id}: {error}" for error in gone.errors]
                    for session_id in due:
                        self.mirror.end(agent.agent_id, session_id, "pruned from its directory")
                deleted += due
            except (BrokenIndex, Conflict, OSError) as error:
                errors.append(f"{agent.agent_id}: {error}")
            progress(done + 1, len(agents))
        minutes = threshold / 60
        return PruneReport(
            total_sessions=total,
            pruned_count=len(deleted),
            kept_count=max(0, total - len(deleted)),
            dry_run=dry_run,
            deleted_ids=deleted,
            errors=[*errors, *self.mirror.problems],
            threshold_minutes=int(minutes) if minutes == int(minutes) else round(minutes, 3),
        )

    def orphans(
        self,
        *,
        archive: bool = False,
        older_than: Duration | None = None,
        protect: Iterable[str] = (),
        force: bool = False,
        progress: Progress = _silent,
    ) -> OrphanReport:
        """List the transcripts no key points at, unchanged for `older_than` (`directories.orphan_age`); with `archive`,
        archive them and end their sessions in the database. Younger ones may be waiting for their key.
        """  # noqa: D205 -- one sentence
        age = self.settings.orphan_age if older_than is None else seconds(older_than, "older_than")
        guard = self._guard(protect, force=force)
        now = time.time()
        found: list[Orphan] = []
        errors: list[str] = []
        young = archived = 0
        agents = layout.agents(self.root)
        for done, agent in enumerate(agents):
            try:
                if archive:
                    removal.finish(self.root, agent, timeout=self.settings.lock_timeout)
                seen = self._view(agent)
                choose = partial(lost, before=now - age, guard=guard)
                due = list(choose(seen))
                young += sum(len(one.files) for one in seen.sessions.values() if one.orphan) - sum(
                    len(one.files) for one in due
                )
                found.extend(
                    Orphan(agent=agent.agent_id, transcript=name, session_id=one.session_id, bytes=facts.size,
                           age=round(now - facts.mtime_ns / 1e9, 1))
                    for one in due for name, facts in one.files.items()
                )  # fmt: skip
                if archive and due:
                    gone = removal.remove(self.root, agent, choose, timeout=self.settings.lock_timeout)
                    archived += sum(gone.archived.values())
                    errors += [f"{agent.agent_id}: {error}" for error in gone.errors]
                    for session_id in gone.archived:
                        self.mirror.end(agent.agent_id, session_id, "orphaned in its directory")
            except (BrokenIndex, Conflict, OSError) as error:
                errors.append(f"{agent.agent_id}: {error}")
            progress(done + 1, len(agents))
        return OrphanReport(
            orphan_count=len(found),
            orphan_bytes=sum(one.bytes for one in found),
            too_young=young,
            archived_count=archived,
            archived=archive,
            orphans=found,
            errors=[*errors, *self.mirror.problems],
        )

    def retention(
        self,
        *,
        older_than: Duration | None = None,
        disk_budget: str | int | None = None,
        dry_run: bool = False,
        progress: Progress = _silent,
    ) -> RetentionReport:
        """Remove archives older than `older_than`, then the oldest until all the root's files are within `disk_budget`.

        What is not given is that of the settings; `never` keeps archives of any age. Raises `InvalidArgument`.
        """
        age = self.settings.archive_retention if older_than is None else seconds_or_never(older_than, "older_than")
        try:
            budget = self.settings.disk_budget if disk_budget is None else parse_size(disk_budget)
        except ValueError as error:
            raise InvalidArgument(f"disk_budget {error}") from error
        return retain(self.root, older_than=age, disk_budget=budget, dry_run=dry_run, progress=progress)

    def _guard(self, protect: Iterable[str], *, force: bool) -> Guard:
        return Guard([*self.settings.protected, *protect], force=force)

    def _view(self, agent: Agent) -> View:
        return view(agent, self.root, read_index(agent.index_file), layout.listing(agent))

    def _find(self, name: str, agent_id: str | None) -> tuple[Agent, DiskSession]:
        agents = layout.agents(self.root)
        if agent_id is not None and agent_id not in {one.agent_id for one in agents}:
            known = ", ".join(one.agent_id for one in agents)
            raise InvalidArgument(f"agent: there is no {agent_id!r} in {self.root}; there are {known or 'none'}")
        found: list[tuple[Agent, DiskSession]] = []
        for agent in agents:
            if agent_id is not None and agent.agent_id != agent_id:
                continue
            removal.finish(self.root, agent, timeout=self.settings.lock_timeout)
            found += [
                (agent, one)
                for one in self._view(agent).sessions.values()
                if name in (one.session_id, layout.database_id(agent.agent_id, one.session_id), *one.keys)
            ]
        if not found:
            raise SessionNotFound(name)
        if len(found) > 1:
            owners = ", ".join(agent.agent_id for agent, _ in found)
            raise InvalidArgument(f"session {name!r} is there for several agents ({owners}); name one of them (agent)")
        return found[0]
