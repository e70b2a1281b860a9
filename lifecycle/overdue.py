"""Which of the worker's jobs have not had a good run for too long, by what they left in the database."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from lifecycle.durations import format_duration
from lifecycle.models.reads import Health
from lifecycle.settings import JobSettings, Settings

# So many times in a row it was time for a run, and there was no good one.
_MISSED: Final = 3


@dataclass(frozen=True, slots=True)
class Standing:
    """When a job last went well (None: never), whether its last run failed, and why it counts as overdue if it does."""

    job: str
    last_good: datetime | None
    failed: bool
    overdue: str | None


def standings(settings: Settings, health: Health) -> list[Standing]:
    """How each job stands that the settings enable.

    It is overdue when its last good run is older than three of its intervals (of its budget, where that is longer), or
    when it was time for three runs by its cron line. One that never went well is measured by the start of the worker
    that has been running longest, and is overdue at once if it failed or nobody runs.
    """
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in health.jobs:
        rows.setdefault(row["job"], []).append(row)
    began = min((row["started_at"] for row in health.workers), default=None)
    return [
        _standing(name, job, rows.get(name, []), health.at, began)
        for name, job in settings.worker.jobs.by_name().items()
        if job.enabled and (name != "sync_directories" or settings.directories.roots)
    ]


def _standing(
    name: str, job: JobSettings, rows: Sequence[Mapping[str, Any]], at: datetime, began: datetime | None
) -> Standing:
    good = max((found for row in rows if (found := _last_good(row)) is not None), default=None)
    failed = any(row["last_error"] is not None for row in rows)
    since = good or (None if failed else began)
    if since is None:
        why = f"{name} has failed, and never had a good run" if failed else f"no worker has run {name}"
        return Standing(name, good, failed, why)
    if at <= _latest(job, since):
        return Standing(name, good, failed, None)
    last = format_duration(int((at - since).total_seconds()))
    why = f"the last good run of {name} was {last} ago" if good else f"{name} has not had a good run for {last}"
    return Standing(name, good, failed, why)


def _last_good(row: Mapping[str, Any]) -> datetime | None:
    finished: datetime | None = row["last_finished_at"]
    if row["last_error"] is None:
        return finished
    # The result of the last run that had one is left there by those that fail.
    result = json.loads(row["last_result"] or "{}")
    return datetime.fromisoformat(result["finished_at"]) if "finished_at" in result else None


def _latest(job: JobSettings, since: datetime) -> datetime:
    """When there should have been another good run at the latest."""
    if job.every is not None:
        return since + _MISSED * timedelta(seconds=max(job.every, job.budget))
    from apscheduler.triggers.cron import CronTrigger

    trigger, due = CronTrigger.from_crontab(job.cron, timezone=since.tzinfo), since
    for _ in range(_MISSED):
        due = trigger.get_next_fire_time(None, due + timedelta(seconds=1)) or due
    return due + timedelta(seconds=job.budget)
