"""The worker's job: every root of the settings, a batch of sessions at a time."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lifecycle.errors import InvalidArgument
from lifecycle.log import get_logger
from lifecycle.models.reads import SweepReport

if TYPE_CHECKING:
    from lifecycle.directories.reports import SyncReport
    from lifecycle.directories.sync import Synchronizer
    from lifecycle.manager.blocking import SessionManager

log = get_logger(__name__)


class DirectoryJob:
    """Syncs the roots that belong to a manager's tenant, or to any for a manager of all.

    It keeps what it knows between two runs, so a round in which nothing changed asks the file system only.
    """

    def __init__(self, manager: "SessionManager", stopping: Callable[[], bool]) -> None:
        self._manager = manager
        self._stopping = stopping
        self._roots = [root for root in manager.settings.directories.roots if _serves(manager, root.tenant)]
        self._syncs: dict[str, Synchronizer] = {}
        self._told: dict[str, list[str]] = {}

    def __bool__(self) -> bool:
        """Whether there is a root to sync."""
        return bool(self._roots)

    def run(self, *, batch: int, budget: float) -> SweepReport:
        """Sync for `budget` seconds, or until `batch` sessions were changed. Raises `StorageUnavailable`."""
        began = time.monotonic()
        left, complete = batch, True
        for root in self._roots:
            report = self._sync(root.path, root.tenant, left, began + budget)
            if report is None:
                continue
            left -= report.created + report.updated + report.ended
            complete = complete and report.complete
            if left <= 0 or not report.complete:
                complete = False
                break
        return SweepReport(
            sweep="sync_directories", dry_run=False, count=batch - left, batches=1, complete=complete, oldest_due=None,
            backlog_age=0.0, seconds=round(time.monotonic() - began, 6), session_ids=[],
        )  # fmt: skip

    def _sync(self, path: str, tenant: str, limit: int, end: float) -> "SyncReport | None":
        from lifecycle.directories.sync import Synchronizer

        if path not in self._syncs:
            self._syncs[path] = Synchronizer(self._manager.for_tenant(tenant), Path(path).expanduser().absolute())
        try:
            report = self._syncs[path].run(stop=lambda: self._stopping() or time.monotonic() > end, limit=max(1, limit))
        except InvalidArgument as error:
            self._tell(path, [str(error)])
            return None
        self._tell(path, [f"{problem.where}: {problem.reason}" for problem in report.problems])
        return report

    def _tell(self, path: str, problems: list[str]) -> None:
        """Log what is new among the problems of a root: most of them stand in every round."""
        before = self._told.get(path, [])
        for problem in problems:
            if problem not in before:
                log.warning("directory_problem", root=path, problem=problem)
        self._told[path] = problems


def _serves(manager: "SessionManager", tenant: str) -> bool:
    scope = manager._context.tenant_or_all  # noqa: SLF001 -- as upkeep, built on the manager's own scope
    return scope is None or scope == tenant
