"""Upkeep: the cleanup jobs of a process, ticking in the background and doing their work in batches."""

import hashlib
import json
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from lifecycle import observing
from lifecycle.directories.job import DirectoryJob
from lifecycle.errors import FileUnavailable, InvalidArgument, StorageUnavailable
from lifecycle.incarnation import incarnation
from lifecycle.log import get_logger, mask_passwords
from lifecycle.settings import JobSettings, ReapJobSettings

if TYPE_CHECKING:
    from lifecycle.manager.blocking import SessionManager
    from lifecycle.models.reads import SweepReport

log = get_logger(__name__)

# A job's lease outlives its budget by so much: the batch that is under way when the time is up.
_GRACE_SECONDS: Final = 60
_LONGEST_WAIT: Final = 60.0
_LATE_SECONDS: Final = 3600
_ID_CHARS: Final = 255
_DIRECTORIES: Final = "sync_directories"
_SAMPLES: Final = "sample_counts"
# Lines of the audit log that a run of it reads at once, and the seconds that it may take: the next run goes on.
_SAMPLES_BATCH: Final = 5000
_SAMPLES_BUDGET: Final = 5
# The scheduler shows so often that it ticks, in seconds.
_PULSE: Final = 1.0


class Outage:
    """Whether the database answers, as all who use it in this process find; says so once when that changes."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._since: float | None = None
        self._until = 0.0
        self.delay = 0.0

    @property
    def waiting(self) -> bool:
        """Whether it is too early to try again."""
        return time.monotonic() < self._until

    def failed(self, error: StorageUnavailable, began: float) -> None:
        """Note that what began then found no database; the wait doubles, once for all that failed together."""
        with self._guard:
            first = self._since is None
            if first:
                self._since, self.delay = time.monotonic(), 0.0
            if began >= self._until:
                self.delay = min(_LONGEST_WAIT, self.delay * 2 or 1.0)
                self._until = time.monotonic() + self.delay
        if first:
            log.warning("database_unavailable", error=mask_passwords(str(error)))

    def worked(self, began: float) -> None:
        """Note that what began then found the database."""
        with self._guard:
            if self._since is None or began < self._since:
                return
            seconds, self._since, self._until = time.monotonic() - self._since, None, 0.0
        log.info("database_recovered", seconds=round(seconds, 3))


class Upkeep:
    """Runs the cleanup jobs that `settings.worker.jobs` enables, for the tenant of the manager or for all.

    Any number of processes may do so: a job's slot is leased by one at a time. With several `slices`, so many workers
    share the job, each passing over what another has locked.
    """

    def __init__(self, manager: "SessionManager", *, holder: str | None = None) -> None:
        self.manager = manager
        self.holder = holder or incarnation()
        self.outage = Outage()
        self._jobs: dict[str, JobSettings] = manager.settings.worker.jobs.by_name()
        self._locks = {name: threading.Lock() for name in self._jobs}
        self._stopping = threading.Event()
        self._directories = DirectoryJob(manager, self._stopping.is_set)
        self._changed = threading.Condition()
        self._running: dict[str, tuple[float, int]] = {}
        self._scheduler: Any = None
        self._pulse_at = time.monotonic()

    @property
    def since_tick(self) -> float:
        """The seconds since the scheduler last ran something, 0 where it does not run; every second there is something."""
        return 0.0 if self._scheduler is None else time.monotonic() - self._pulse_at

    @property
    def enabled(self) -> list[str]:
        """The names of the jobs that tick; the one for session directories does where there are any."""
        idle = set() if self._directories else {_DIRECTORIES}
        return [name for name, job in self._jobs.items() if job.enabled and name not in idle]

    def start(self) -> None:
        """Begin to tick: a job with an interval at once, one with a cron line at its next time."""
        if self._scheduler is not None:
            return
        self._stopping.clear()
        scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(len(self.enabled) + 1)},
            job_defaults={"max_instances": 1, "coalesce": True},
            daemon=True,
        )
        scheduler.add_listener(self._noticed, EVENT_JOB_MISSED | EVENT_JOB_ERROR | EVENT_JOB_MAX_INSTANCES)
        for name in self.enabled:
            job = self._jobs[name]
            if job.cron is not None:
                when: dict[str, Any] = {"trigger": CronTrigger.from_crontab(job.cron, timezone=UTC)}
            else:
                when = {
                    "trigger": IntervalTrigger(seconds=job.every, timezone=UTC),
                    "next_run_time": datetime.now(UTC),
                }
            late = job.every or _LATE_SECONDS
            scheduler.add_job(self._tick, args=(name,), id=name, misfire_grace_time=late, **when)
        pulse = IntervalTrigger(seconds=_PULSE, timezone=UTC)
        scheduler.add_job(self._pulse, pulse, id="pulse", misfire_grace_time=None, next_run_time=datetime.now(UTC))
        self._pulse()
        scheduler.start()
        self._scheduler = scheduler

    def stop(self, timeout: float | None = None) -> bool:
        """Stop ticking and wait for the batches under way, for `timeout` seconds at most; whether they ended."""
        self._stopping.set()
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.shutdown(wait=False)
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout)

    def run_job(self, name: str) -> dict[str, Any] | None:
        """Run one job now, enabled or not, behind a run of it that is under way in this process.

        What it did, or None while other workers are at it. Raises `StorageUnavailable` and what else a sweep raises.
        """
        if name not in self._locks:
            raise InvalidArgument(f"name: {name!r} is no job; there are {', '.join(self._locks)}")
        with self._locks[name], self._noted(name):
            return self._leased(name)

    def longest_run(self) -> tuple[str, float, str] | None:
        """The job that has been running longest, for how many seconds, and where its thread stands."""
        with self._changed:
            if not self._running:
                return None
            name, (began, thread) = min(self._running.items(), key=lambda item: item[1][0])
        frame = sys._current_frames().get(thread)  # noqa: SLF001 -- the only way to another thread's stack
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        return name, time.monotonic() - began, stack

    def _pulse(self) -> None:
        self._pulse_at = time.monotonic()

    def _tick(self, name: str) -> None:
        if self._stopping.is_set():
            return
        if self.outage.waiting:
            log.debug("sweep_skipped", sweep=name, reason="the database is unavailable")
            return
        began = time.monotonic()
        try:
            self.run_job(name)
        except StorageUnavailable as error:
            if "statement_timeout" in str(error):  # the database answers, only too late for this one
                log.error("sweep_failed", sweep=name, error=str(error))  # noqa: TRY400 -- the message says what to do
            else:
                self.outage.failed(error, began)
        except FileUnavailable as error:
            log.error("sweep_failed", sweep=name, error=str(error))  # noqa: TRY400 -- the message says what to do
        except Exception as error:
            log.exception("sweep_failed", sweep=name, error=_described(error))
        else:
            self.outage.worked(began)

    @contextmanager
    def _noted(self, name: str) -> Iterator[None]:
        with self._changed:
            self._running[name] = time.monotonic(), threading.get_ident()
        try:
            yield
        finally:
            with self._changed:
                del self._running[name]
                self._changed.notify_all()

    def _leased(self, name: str) -> dict[str, Any] | None:
        job, row = self._jobs[name], self._row(name)
        for slot in range(job.slices):
            term = self.manager.take_job(row, holder=self.holder, ttl=int(job.budget + _GRACE_SECONDS), slice_no=slot)
            if term is not None:
                break
        else:
            log.debug("sweep_skipped", sweep=name, reason="another worker has it")
            return None
        began = time.monotonic()
        done: dict[str, Any] = {"sweep": name, "count": 0, "batches": 0, "complete": False}
        lease: dict[str, Any] = {"holder": self.holder, "term": term, "slice_no": slot}
        failed: BaseException | None = None
        try:
            self._sweep(name, job, done)
        except Exception as error:
            failed = error
            # The database may be what failed: then the lease runs out by itself.
            with suppress(Exception):
                self.manager.end_job(row, **lease, error=_described(error))
            raise
        finally:
            done["seconds"] = round(time.monotonic() - began, 6)
            acted = done["count"] and name != _SAMPLES  # it counts every minute, and changes nothing
            (log.info if acted or done.get("trimmed") else log.debug)("sweep_done", **done)
            for observer in observing.OBSERVERS:
                observer.swept(name, done, failed)
        self.manager.end_job(row, **lease, result=json.dumps(done))
        return done

    def _sweep(self, name: str, job: JobSettings, done: dict[str, Any]) -> None:
        end = time.monotonic() + job.budget
        if name == _DIRECTORIES:
            while not done["complete"]:
                _note(done, self._directories.run(batch=job.batch, budget=job.budget))
                if time.monotonic() >= end or not self._goes_on(job):
                    break
            return
        if name == _SAMPLES:
            # Several workers come at it one after the other: for all of them together it is time once in `every`.
            spacing, budget = (job.every or 0) / 2, min(job.budget, _SAMPLES_BUDGET)
            _note(done, self.manager.take_sample(batch=_SAMPLES_BATCH, budget=budget, spacing=spacing))
            return

        def counted(count: int) -> bool:
            # It stays done, whatever becomes of the next batch.
            done["batches"] += count > done["count"]
            done["count"] = count
            return self._goes_on(job)

        more = {"silent_for": job.silent_for} if isinstance(job, ReapJobSettings) else {}
        report = getattr(self.manager, name)(batch=job.batch, budget=job.budget, go_on=counted, **more)
        done |= {"count": 0, "batches": 0}
        _note(done, report)
        if name == "prune_sessions" and not self._stopping.is_set():
            left = max(0.0, end - time.monotonic())
            done["trimmed"] = self.manager.trim(batch=job.batch, budget=left, go_on=lambda _: self._goes_on(job))

    def _goes_on(self, job: JobSettings) -> bool:
        """Wait for the pause between two batches; whether nobody wants the job to stop."""
        return not self._stopping.wait(job.pause)

    def _row(self, name: str) -> str:
        """The job's name in `worker_jobs`: other tenants' managers sweep other sessions, under leases of their own."""
        scope = self.manager._context.tenant_or_all  # noqa: SLF001 -- built on the manager's own scope
        if not scope:
            return name
        row = f"{name}:{scope}"
        return row if len(row) <= _ID_CHARS else f"{name}:{hashlib.sha256(scope.encode()).hexdigest()}"

    def _noticed(self, event: Any) -> None:
        if event.code == EVENT_JOB_MISSED:
            log.warning("sweep_missed", sweep=event.job_id, due=event.scheduled_run_time.isoformat())
        elif event.code == EVENT_JOB_MAX_INSTANCES:
            log.debug("sweep_skipped", sweep=event.job_id, reason="its last run is still under way")
        else:
            log.error("sweep_failed", sweep=event.job_id, error=_described(event.exception))


def _note(done: dict[str, Any], report: "SweepReport") -> None:
    """Add a report to what a job has done."""
    if "oldest_due" not in done:
        done["oldest_due"] = report.oldest_due.isoformat() if report.oldest_due else None
        done["backlog_age"] = report.backlog_age
    done["count"] += report.count
    done["batches"] += report.batches
    done["complete"] = report.complete


def _described(error: BaseException) -> str:
    return mask_passwords(f"{type(error).__name__}: {error}")
