"""Samples: what is counted now and then, so that nobody who looks has to count.

Two kinds of numbers. What there is (sessions by state, the backlog, leases) is counted, and kept for every ten minutes;
what happened is added up by hour, going on behind the last line of the audit log that was counted.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from lifecycle import states
from lifecycle.errors import InvalidArgument
from lifecycle.models.reads import Samples, SessionCounts, SweepReport
from lifecycle.operations.context import Context, check_count
from lifecycle.operations.requests import (
    CountSessions,
    CountTransitions,
    DuplicateKey,
    ReadSampled,
    ReadSamples,
    StoreSamples,
)
from lifecycle.operations.typing import Steps

# What there is, as of the last look in each ten minutes. The states are names of their own.
GAUGES: Final = (*states.STATES, "due_to_expire", "backlog_age", "due_to_prune", "pending_approvals", "leased")
# What happened in each hour.
TRIGGERS: Final = ("create", *states.TRIGGERS, "soft_delete", "undelete", "delete")
NAMES: Final = (*GAUGES, *TRIGGERS)

# Rows of what is due that one look reads at most.
DUE_LIMIT: Final = 100_000
# After a look that took long, nobody looks for so many times as long: it may cost the database a twentieth of its time.
_REST: Final = 19
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)


def take_sample(
    context: Context, *, batch: int = 5000, budget: float = 5.0, spacing: float = 0.0
) -> Steps[SweepReport]:
    """Count sessions, and the transitions since the last time, for `get_counts` and `get_samples`.

    Sessions are not counted again within `spacing` seconds, nor before 19 times as long has passed as it took. What
    happened is read `batch` lines at a time for `budget` seconds: the report is not `complete` when there are more.
    Its `count` are those lines, its backlog's age is that of sessions to expire (0 where they were not counted).
    """
    check_count(batch, "batch", 1, 100_000)
    started = context.monotonic()
    age = yield from _count_sessions(context, spacing)
    count = batches = 0
    more = True
    while more and (not batches or context.monotonic() - started < budget):
        done, more = yield from _met(CountTransitions(batch))
        count += done
        batches += 1
    return SweepReport.of(
        {
            "sweep": "sample_counts",
            "dry_run": False,
            "count": count,
            "batches": batches,
            "complete": not more,
            "oldest_due": None,
            "backlog_age": age,
            "seconds": context.monotonic() - started,
            "session_ids": [],
        }
    )


def get_counts(context: Context) -> Steps[SessionCounts | None]:
    """How many sessions there were in each state, and how far sweeps were behind, when a worker last looked.

    None when none ever did: `lifecycle worker` and `lifecycle up` look every minute. It costs a read by key.
    """
    _, counts = yield from read_counts(context)
    return counts


def read_counts(context: Context) -> Steps[tuple[datetime, SessionCounts | None]]:
    """The database's time, and what `get_counts` gives."""
    tenant = context.tenant_or_all
    at, _, now, rows, transitions = yield ReadSamples(tenant, GAUGES, None)
    if at is None:
        return now, None
    found = {row["name"]: row["value"] for row in rows}
    numbers: dict[str, Any] = {name: int(found.get(name, 0)) for name in GAUGES}
    return now, SessionCounts.of(
        {
            **{name: numbers[name] for name in ("due_to_expire", "due_to_prune", "pending_approvals", "leased")},
            "sampled_at": at,
            "by_state": {state: numbers[state] for state in states.STATES},
            "backlog_age": float(found.get("backlog_age", 0)),
            "transitions": {name: transitions.get(name, 0) for name in TRIGGERS} if tenant is None else {},
        }
    )


def get_samples(context: Context, names: Sequence[str] = NAMES, *, since: datetime | None = None) -> Steps[Samples]:
    """Numbers over time, of the manager's tenant or of all, from the hour of `since` on (a day ago unless given).

    Names of what there is, one point for every ten minutes in which a worker looked: `active`, `suspended`,
    `completed`, `ended`, `expired` (sessions in the state), `due_to_expire`, `due_to_prune`, `pending_approvals`,
    `leased`, and `backlog_age` in seconds. Names of what happened, one point for every hour, at its beginning, the
    hour under way included: `create`, `suspend`, `resume`, `complete`, `end`, `expire`, `reopen`, `soft_delete`,
    `undelete`, `delete`. Raises `InvalidArgument` for another name.
    """
    if isinstance(names, str):
        raise InvalidArgument(f"names must be a list of names, not {names!r}")
    for name in names:
        if name not in NAMES:
            raise InvalidArgument(f"names: {name!r} is none of {', '.join(NAMES)}")
    if since is None:
        _, _, now = yield ReadSampled(context.tenant_or_all)
        since = now - _DAY
    since = _hour(since)
    # Where a tenant has a row for `active` it was looked at: other numbers without a row were 0 then.
    wanted = tuple(dict.fromkeys(("active", *names)))
    at, began, now, rows, _ = yield ReadSamples(context.tenant_or_all, wanted, since)
    found: dict[str, dict[datetime, float]] = {name: {} for name in wanted}
    for row in rows:
        found[row["name"]][row["sampled_at"]] = float(row["value"])
    looks = sorted(found["active"])
    kept = now - timedelta(seconds=context.settings.housekeeping.samples)
    # What was imported may be older than the counting.
    early = [when for name, points in found.items() if name in TRIGGERS for when in points]
    hours = [] if began is None else _hours(max(since, kept, min([began, *early])), now)
    series = {
        name: [(when, found[name].get(when, 0.0)) for when in (looks if name in GAUGES else hours)]
        for name in dict.fromkeys(names)
    }
    return Samples.of({"sampled_at": at, "counted_since": began, "series": series})


def _count_sessions(context: Context, spacing: float) -> Steps[float]:
    tenant = context.tenant_or_all
    last, took, now = yield ReadSampled(tenant)
    if last is not None and (now - last).total_seconds() < max(spacing, _REST * took):
        return 0.0
    began = context.monotonic()
    numbers: Mapping[str, Mapping[str, float]] = yield CountSessions(tenant, DUE_LIMIT)
    totals = dict.fromkeys(GAUGES, 0.0)
    for own in numbers.values():
        for name, value in own.items():
            totals[name] = max(totals[name], value) if name == "backlog_age" else totals[name] + value
    yield from _met(StoreSamples(tenant, numbers, totals, context.monotonic() - began))
    return totals["backlog_age"]


def _met(request: Any) -> Steps[Any]:
    """The answer to a request that keeps its place in a row, which somebody else may make for the first time too."""
    try:
        return (yield request)
    except DuplicateKey:
        return (yield request)


def _hours(since: datetime, until: datetime) -> list[datetime]:
    """The beginnings of the hours from one time to another."""
    first = _hour(since)
    return [first + _HOUR * i for i in range(int((until - first) / _HOUR) + 1)] if first <= until else []


def _hour(at: datetime) -> datetime:
    """The beginning of its hour; a time without a zone is taken as UTC."""
    aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return aware.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
