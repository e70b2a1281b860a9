"""The daemon and its jobs, and when each runs."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator, model_validator

from lifecycle.durations import format_duration
from lifecycle.settings.section import Section
from lifecycle.settings.values import Count, Seconds, no_bool, seconds

_CRON_NUMBERS: Final = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12))
_CRON_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class JobSettings(Section):
    """When a cleanup job runs, and how much it does: exactly one of `every` and `cron` is set."""

    every: Annotated[int | None, PlainSerializer(lambda value: value and format_duration(value))] = None
    """Seconds from one run to the next."""
    cron: str | None = None
    """Five fields, in UTC."""
    enabled: bool = True
    """Whether the job runs at all."""
    batch: Annotated[Count, Field(le=10_000)] = 5000
    """Rows per transaction at most: it is as many as are done in a quarter of a second."""
    budget: Seconds = 20
    """Seconds one run may take; what is left waits for the next."""
    slices: Annotated[Count, Field(le=256)] = 1
    """Workers that may share the sweep at a time, each passing over what another holds."""
    pause: Annotated[float, BeforeValidator(no_bool), Field(ge=0, le=60, allow_inf_nan=False)] = 0.02
    """Seconds between batches, for the database to breathe."""

    @field_validator("every", mode="before")
    @classmethod
    def _every(cls, value: Any) -> int | None:
        return None if value is None else seconds(value)

    @field_validator("cron")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is not None:
            _check_cron(value)
        return value

    @model_validator(mode="after")
    def _one_schedule(self) -> Self:
        if (self.every is None) == (self.cron is None):
            raise ValueError("must have exactly one of every (such as 30s) and cron (such as '*/5 * * * *')")
        return self


class DirectoryJobSettings(JobSettings):
    """The job that reads session directories."""

    batch: Annotated[Count, Field(le=10_000)] = 500
    """Sessions between two looks at the time."""


class ReapJobSettings(JobSettings):
    """The job that closes connections nobody beats for any more."""

    silent_for: Seconds = 300
    """Seconds without a beat until a connection counts as gone."""


def _check_cron(text: str) -> None:
    """Raise ValueError unless `text` is a cron line every scheduler reads alike.

    Days of the week are names only: 0 is Monday to APScheduler and Sunday to cron.
    """
    parts = text.split()
    if len(parts) != len(_CRON_NUMBERS) + 1:
        raise ValueError(f"must have five fields (minute hour day month weekday), such as '*/5 * * * *'; not {text!r}")
    for part, (name, low, high) in zip(parts, _CRON_NUMBERS, strict=False):
        for item in part.split(","):
            match = re.fullmatch(r"(?:\*|([0-9]{1,2})(?:-([0-9]{1,2}))?)(?:/([1-9][0-9]?))?", item)
            bounds = [int(bound) for bound in match.groups()[:2] if bound] if match else [-1]
            if bounds != sorted(bounds) or not all(low <= bound <= high for bound in bounds):
                raise ValueError(
                    f"cron: {name} must be *, */n, n, n-n or a list of those, {low} to {high}; not {item!r}"
                )
    for item in parts[-1].lower().split(","):
        first, _, last = item.partition("-")
        if item != "*" and not {first, last or first} <= set(_CRON_DAYS):
            raise ValueError(f"cron: weekday must be * or names ({', '.join(_CRON_DAYS)}, mon-fri); not {item!r}")


def _runs_every(seconds: int) -> BeforeValidator:
    """Return a validator that gives a job without a schedule its default one."""

    def fill(value: Any) -> Any:
        if value is None:
            return {"every": seconds}
        if isinstance(value, Mapping) and value.get("every") is None and value.get("cron") is None:
            return {**value, "every": seconds}
        return value

    return BeforeValidator(fill)


class JobsSettings(Section):
    """The worker's cleanup jobs."""

    expire_idle: Annotated[JobSettings, _runs_every(30)] = JobSettings(every=30)
    """Expires sessions that are past their deadline."""
    prune_sessions: Annotated[JobSettings, _runs_every(300)] = JobSettings(every=300)
    """Removes finished sessions that are past their retention."""
    delete_ghosts: Annotated[JobSettings, _runs_every(300)] = JobSettings(every=300)
    """Removes sessions nothing was ever stored in."""
    expire_approvals: Annotated[JobSettings, _runs_every(30)] = JobSettings(every=30)
    """Expires approval requests nobody answered in time."""
    reap_connections: Annotated[ReapJobSettings, _runs_every(60)] = ReapJobSettings(every=60)
    """Closes connections that fell silent."""
    sync_directories: Annotated[DirectoryJobSettings, _runs_every(30)] = DirectoryJobSettings(every=30)
    """Brings what changed in `directories.roots` into the database; without a root it does not run."""
    sample_counts: Annotated[JobSettings, _runs_every(60)] = JobSettings(every=60)
    """Counts sessions and transitions for the dashboard and the metrics."""

    def by_name(self) -> dict[str, JobSettings]:
        """Return each job's settings by its name."""
        return {name: getattr(self, name) for name in type(self).model_fields}


class WorkerSettings(Section):
    """The daemon that runs the cleanup jobs."""

    name: Annotated[str, Field(min_length=1, max_length=255, pattern=r"\S")] | None = None
    """The worker's name, unique among those running; None for a generated one."""
    drain_timeout: Seconds = 20
    """Seconds a stopping worker waits for its runs to end."""
    heartbeat: Seconds = 10
    """Seconds between two signs of life."""
    host: Annotated[str, Field(min_length=1, max_length=255)] = "127.0.0.1"
    """The address on which the worker serves /metrics, /livez and /readyz."""
    port: Annotated[int, BeforeValidator(no_bool), Field(ge=0, le=65_535)] | None = None
    """The port for it, 0 for any that is free; None to serve nothing."""
    watchdog: Seconds = 120
    """Seconds after which a run that has not returned ends the process."""
    jobs: JobsSettings = JobsSettings()
    """The cleanup jobs."""

    @model_validator(mode="after")
    def _budgets_below_watchdog(self) -> Self:
        for name, job in self.jobs.by_name().items():
            if job.budget >= self.watchdog:
                raise ValueError(
                    f"watchdog ({format_duration(self.watchdog)}) must be longer than jobs.{name}.budget "
                    f"({format_duration(job.budget)}): it would end a healthy run"
                )
        return self
