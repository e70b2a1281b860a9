"""The calls on session directories as `lifecycle call` has them: one function each, of values that JSON can say.

Without a `root` they work on every configured one. What they give back is one report; of several roots, one by root.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lifecycle.directories.directory import SessionDirectory
from lifecycle.directories.reports import (
    DeleteReport,
    OrphanReport,
    PruneReport,
    RetentionReport,
    ScanReport,
    SyncReport,
)
from lifecycle.errors import InvalidArgument, SessionNotFound
from lifecycle.settings import Settings

if TYPE_CHECKING:
    from lifecycle.manager.blocking import SessionManager

Opener = Callable[[str], "SessionManager"]
"""Opens the database for a tenant."""


class Directories:
    """The roots of one call: the one that is named, else all that are configured."""

    def __init__(self, settings: Settings, opener: Opener, tenant: str | None = None) -> None:
        self._settings = settings
        self._open = opener
        self._tenant = tenant

    def of(self, root: str | None) -> list[SessionDirectory]:
        """The directories to work on. Raises `InvalidArgument` when none is named and none is configured."""
        section = self._settings.directories
        if root is not None:
            # One that is configured keeps its tenant.
            tenants = {SessionDirectory(one.path).root: one.tenant for one in section.roots}
            chosen = [(root, tenants.get(SessionDirectory(root).root, ""))]
        else:
            chosen = [(one.path, one.tenant) for one in section.roots]
        if not chosen:
            raise InvalidArgument("root: name a directory, or set directories.roots in the configuration")
        return [
            SessionDirectory(path, self._opener(tenant if self._tenant is None else self._tenant), section)
            for path, tenant in chosen
        ]

    def _opener(self, tenant: str) -> "Callable[[], SessionManager]":
        return lambda: self._open(tenant)


def scan(self: Directories, root: str | None = None) -> list[ScanReport]:
    """Count the sessions, orphans and archives on disk, per agent."""
    return [one.scan() for one in self.of(root)]


def sync(self: Directories, root: str | None = None) -> list[SyncReport]:
    """Bring what changed on disk into the database, and end what vanished."""
    return [one.sync() for one in self.of(root)]


def delete(
    self: Directories,
    session_id: str,
    *,
    root: str | None = None,
    agent: str | None = None,
    protect: list[str] | None = None,
    force: bool = False,
) -> DeleteReport:
    """Remove a session from disk and end it in the database."""
    for one in self.of(root):
        try:
            return one.delete(session_id, agent=agent, protect=protect or (), force=force)
        except SessionNotFound:
            continue
    raise SessionNotFound(session_id)


def prune(
    self: Directories,
    max_age: str | int,
    *,
    root: str | None = None,
    kind: list[str] | str | None = None,
    protect: list[str] | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> list[PruneReport]:
    """Remove the sessions in which nothing happened for so long from disk, and end them in the database."""
    return [
        one.prune(max_age, kinds=kind or (), protect=protect or (), force=force, dry_run=dry_run)
        for one in self.of(root)
    ]


def orphans(
    self: Directories,
    *,
    root: str | None = None,
    archive: bool = False,
    older_than: str | int | None = None,
    protect: list[str] | None = None,
    force: bool = False,
) -> list[OrphanReport]:
    """List the transcripts that no key points at, or archive them and end their sessions in the database."""
    return [
        one.orphans(archive=archive, older_than=older_than, protect=protect or (), force=force) for one in self.of(root)
    ]


def retention(
    self: Directories,
    *,
    root: str | None = None,
    older_than: str | int | None = None,
    disk_budget: str | int | None = None,
    dry_run: bool = False,
) -> list[RetentionReport]:
    """Remove archived transcripts that are too old, then the oldest until within the disk budget."""
    return [one.retention(older_than=older_than, disk_budget=disk_budget, dry_run=dry_run) for one in self.of(root)]


CALLS: dict[str, Callable[..., Any]] = {
    f"directory.{one.__name__}": one for one in (scan, sync, delete, prune, orphans, retention)
}
"""Each call by the name that `lifecycle call` has for it."""


def simplified(answer: Any) -> Any:
    """One report as itself, several as a list."""
    return answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
