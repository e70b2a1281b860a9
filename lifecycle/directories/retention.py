"""Removing archives: those that are too old, then the oldest until the root is within its budget."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lifecycle.directories import layout
from lifecycle.directories.reports import RetentionReport
from lifecycle.directories.view import total_bytes


class _Archive(NamedTuple):
    at: float
    path: Path
    size: int


def retain(
    root: Path,
    *,
    older_than: int | None,
    disk_budget: int | None,
    dry_run: bool,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> RetentionReport:
    """Remove archived transcripts that are older than so many seconds, then the oldest while the root is above budget.

    The budget (bytes) is compared with all files of the root's session directories; only archives are removed. None
    switches either rule off. Raises `InvalidArgument` when the root is not there.
    """
    now = time.time()
    archives, total = _found(root)
    archives.sort()
    expired = 0 if older_than is None else sum(one.at < now - older_than for one in archives)
    going, left = archives[:expired], total - sum(one.size for one in archives[:expired])
    for one in archives[expired:]:
        if disk_budget is None or left <= disk_budget:
            break
        going.append(one)
        left -= one.size
    removed, freed, errors = 0, 0, []
    for done, one in enumerate(going):
        try:
            if not dry_run:
                one.path.unlink(missing_ok=True)
        except OSError as error:
            errors.append(f"{one.path} cannot be removed: {error.strerror}")
            continue
        removed, freed = removed + 1, freed + one.size
        progress(done + 1, len(going))
    left = total - freed
    return RetentionReport(
        dry_run=dry_run,
        archives=len(archives),
        archive_bytes=sum(one.size for one in archives),
        removed_count=removed,
        removed_bytes=freed,
        expired_count=expired,
        total_bytes=total,
        disk_budget=disk_budget,
        over_budget=max(0, left - disk_budget) if disk_budget is not None else 0,
        errors=errors,
    )


def _found(root: Path) -> tuple[list[_Archive], int]:
    archives: list[_Archive] = []
    total = 0
    for agent in layout.agents(root):
        listed = layout.listing(agent)
        archives += [
            _Archive(layout.archived_at(name, facts), agent.path / name, facts.size)
            for name, facts in listed.archives.items()
        ]
        total += total_bytes(listed.transcripts.values()) + total_bytes(listed.archives.values()) + listed.other_bytes
        total += listed.index.size if listed.index else 0
    return archives, total
