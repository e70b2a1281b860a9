"""Sweeps: what is due is expired or removed in batches, one transaction each, for as long as the budget lasts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from lifecycle import states
from lifecycle.errors import InvalidArgument, SessionNotFound, StorageUnavailable
from lifecycle.log import get_logger
from lifecycle.models.reads import SweepReport
from lifecycle.operations.attempts import LAPSE
from lifecycle.operations.context import Context, check_count
from lifecycle.operations.pace import FIRST
from lifecycle.operations.requests import (
    CountDue,
    DeleteSessions,
    Due,
    GetSession,
    OldestDue,
    Pause,
    Restamp,
    SecondsMap,
    SweepBatch,
    Trim,
)
from lifecycle.operations.sessions import Duration, _duration
from lifecycle.operations.typing import Steps

log = get_logger(__name__)

# Rows of a transaction at most, unless the caller says otherwise; how many it is, the time they take decides.
BATCH: Final = 5000
_REMOVING: Final = ("prune_sessions", "delete_ghosts")
_LISTED: Final = 1000
GoOn = Callable[[int], bool]


@dataclass(slots=True)
class _Tally:
    """What a sweep has done so far."""

    ids: list[str] = field(default_factory=list)
    count: int = 0
    batches: int = 0
    complete: bool = True

    def add(self, done: list[str]) -> None:
        self.batches += bool(done)
        self.count += len(done)
        self.ids.extend(done[: _LISTED - len(self.ids)])


def sweep(
    context: Context,
    due: Due,
    *,
    reason: str | None,
    retention: SecondsMap = ("{}", None),
    dry_run: bool = False,
    batch: int = BATCH,
    budget: float | None = None,
    pause: float = 0.0,
    actor: str | None = None,
    go_on: GoOn | None = None,
) -> Steps[SweepReport]:
    """Run one sweep and report. The dry run counts with the predicate that the write repeats."""
    _check(batch, go_on)
    started = context.monotonic()
    tally = _Tally()
    archive = context.archive if due.sweep in _REMOVING else None
    if dry_run:
        tally.count, oldest, at = yield CountDue(due)
    else:
        oldest, at = yield OldestDue(due)
        if oldest is not None:
            one = SweepBatch(due, batch, reason, actor, retention, archive)
            yield from _batches(context, one, tally, None if budget is None else started + budget, pause, go_on)
    return SweepReport.of(
        {
            "sweep": due.sweep,
            "dry_run": dry_run,
            "count": tally.count,
            "batches": tally.batches,
            "complete": tally.complete,
            "oldest_due": oldest,
            "backlog_age": max(0.0, (at - oldest).total_seconds()) if oldest else 0.0,
            "seconds": context.monotonic() - started,
            "session_ids": tally.ids,
        }
    )


def _check(batch: int, go_on: GoOn | None) -> None:
    check_count(batch, "batch", 1, 10_000)
    if not (go_on is None or callable(go_on)):
        raise InvalidArgument(f"go_on must be a function of the number done so far, or None, not {go_on!r}")


def _batches(
    context: Context, first: SweepBatch, tally: _Tally, until: float | None, pause: float, go_on: GoOn | None
) -> Steps[None]:
    """Batch after batch, each where the last one ended, and a last one from the beginning, for what others held."""
    since: datetime | None = None
    while True:
        batch = replace(first, since=since)
        asked, done = yield from _paced(context, first.due.sweep, first.limit, batch)
        if done is not None:
            tally.add(done)
            if len(done) < asked and since is None:
                return
            since = None if len(done) < asked else done.last
        if (until is not None and context.monotonic() >= until) or not (go_on is None or go_on(tally.count)):
            tally.complete = False
            return
        if pause:
            yield Pause(pause)


def _paced(context: Context, name: str, most: int, request: SweepBatch | Trim) -> Steps[tuple[int, Any]]:
    """How many rows were asked for, and the answer; None where that was too much for one statement."""
    pace, began = context.paces[name], context.monotonic()
    request.limit = asked = min(pace.rows, most)
    try:
        done = yield request
    except StorageUnavailable as error:
        if asked == 1 or "statement_timeout" not in str(error):
            raise
        log.warning("sweep_batch_reduced", sweep=name, batch=pace.timed_out(asked))
        return asked, None
    pace.took(asked, done if isinstance(done, int) else len(done), context.monotonic() - began)
    return asked, done


def expire_idle(
    context: Context,
    *,
    kind: str | None = None,
    dry_run: bool = False,
    batch: int = BATCH,
    budget: float | None = None,
    pause: float = 0.0,
    where: Any = None,
    actor: str | None = None,
    go_on: GoOn | None = None,
) -> Steps[SweepReport]:
    """Expire the live sessions whose deadline has passed: idle too long, or too old.

    Never a protected or leased one, nor one touched before the write. A batch has `batch` sessions at most, and as many
    as are done in a quarter of a second; after each, `go_on` is called with the number done so far, and ends the sweep
    where it gives something false. `budget` is in seconds, `pause` between batches too. The first 1,000 ids are in the
    report.
    """
    due = Due(context.tenant_or_all, "expire_idle", kind=kind, where=where)
    retention = context.policies.retention_map("expired")
    options: dict[str, Any] = {"dry_run": dry_run, "batch": batch, "budget": budget, "pause": pause, "go_on": go_on}
    return (yield from sweep(context, due, reason="idle", retention=retention, actor=actor, **options))


def prune_sessions(
    context: Context,
    *,
    older_than: Duration | None = None,
    states: Sequence[str] | None = None,
    kind: str | None = None,
    dry_run: bool = False,
    batch: int = BATCH,
    budget: float | None = None,
    pause: float = 0.0,
    where: Any = None,
    actor: str | None = None,
    go_on: GoOn | None = None,
) -> Steps[SweepReport]:
    """Remove finished sessions with all they own, once their retention has passed.

    With `older_than`, those that ended at least so long ago, whatever their retention; with `states` naming active
    or suspended, those without activity for so long. Never a protected or leased one. With an archive (config:
    `archive.directory`) they are written there first. Raises `FileUnavailable`: then nothing of the batch was removed.
    """
    chosen = _check_states(states)
    seconds = _duration(older_than, "older_than")
    if seconds is None and set(chosen) - set(_TERMINAL):
        raise InvalidArgument("states: to prune active or suspended sessions say older_than how long without activity")
    due = Due(context.tenant_or_all, "prune_sessions", kind=kind, states=chosen, seconds=seconds, where=where)
    options: dict[str, Any] = {"dry_run": dry_run, "batch": batch, "budget": budget, "pause": pause, "go_on": go_on}
    return (yield from sweep(context, due, reason="pruned", actor=actor, **options))


def delete_ghosts(
    context: Context,
    *,
    dry_run: bool = False,
    batch: int = BATCH,
    budget: float | None = None,
    pause: float = 0.0,
    where: Any = None,
    actor: str | None = None,
    go_on: GoOn | None = None,
) -> Steps[SweepReport]:
    """Remove live sessions that got neither a message nor a saved state within their kind's time for that."""
    due = Due(context.tenant_or_all, "delete_ghosts", where=where)
    options: dict[str, Any] = {"dry_run": dry_run, "batch": batch, "budget": budget, "pause": pause, "go_on": go_on}
    return (yield from sweep(context, due, reason="ghost", actor=actor, **options))


def expire_approvals(
    context: Context,
    *,
    dry_run: bool = False,
    batch: int = BATCH,
    budget: float | None = None,
    pause: float = 0.0,
    actor: str | None = None,
    go_on: GoOn | None = None,
) -> Steps[SweepReport]:
    """Expire pending approvals whose time has passed; a session that one suspended goes on and finds it expired."""
    due = Due(context.tenant_or_all, "expire_approvals")
    options: dict[str, Any] = {"dry_run": dry_run, "batch": batch, "budget": budget, "pause": pause, "go_on": go_on}
    return (yield from sweep(context, due, reason="approval expired", actor=actor, **options))


def reap_connections(
    context: Context,
    *,
    silent_for: Duration = "5m",
    dry_run: bool = False,
    batch: int = BATCH,
    budget: float | None = None,
    pause: float = 0.0,
    go_on: GoOn | None = None,
) -> Steps[SweepReport]:
    """Remove the connections that have been silent for so long."""
    due = Due(context.tenant_or_all, "reap_connections", seconds=_duration(silent_for, "silent_for"))
    options: dict[str, Any] = {"dry_run": dry_run, "batch": batch, "budget": budget, "pause": pause, "go_on": go_on}
    return (yield from sweep(context, due, reason=None, **options))


def cleanup_stale_sessions(
    context: Context,
    max_age: Duration,
    *,
    kind: str | None = None,
    reason: str = "stale",
    dry_run: bool = False,
    batch: int = BATCH,
    budget: float | None = None,
    actor: str | None = None,
    go_on: GoOn | None = None,
) -> Steps[SweepReport]:
    """End the live sessions without activity for `max_age`, giving `reason`."""
    due = Due(
        context.tenant_or_all, "cleanup_stale_sessions", kind=kind, states=states.LIVE,
        seconds=_duration(max_age, "max_age"),
    )  # fmt: skip
    retention = context.policies.retention_map("ended")
    options: dict[str, Any] = {"dry_run": dry_run, "batch": batch, "budget": budget, "go_on": go_on}
    told = context.check_long(reason, "reason")
    return (yield from sweep(context, due, reason=told, retention=retention, actor=actor, **options))


def cleanup_after_delegation(
    context: Context, session_id: str, *, reason: str = "delegation finished", actor: str | None = None
) -> Steps[SweepReport]:
    """End and remove a sub-session whose work is done, with the sub-sessions below it, all or none.

    Raises `SessionNotFound`, `InvalidArgument` (it has no parent), `SessionProtected`, `SessionBusy`.
    """
    started = context.monotonic()
    session_id = context.check_id(session_id)
    row = yield GetSession(context.tenant, session_id)
    if row is None:
        raise SessionNotFound(session_id)
    if row["parent_id"] is None:
        raise InvalidArgument(f"session {session_id!r} has no parent, so it is no sub-session: use delete_session")
    removed = yield DeleteSessions(
        ((context.tenant, session_id),), context.check_short(actor, "actor"), reason, False, descendants=True,
        end_first=True, archive=context.archive,
    )  # fmt: skip
    return SweepReport.of(
        {
            "sweep": "cleanup_after_delegation",
            "dry_run": False,
            "count": removed,
            "batches": 1,
            "complete": True,
            "oldest_due": None,
            "backlog_age": 0.0,
            "seconds": context.monotonic() - started,
            "session_ids": [session_id],
        }
    )


def trim(context: Context, *, batch: int = BATCH, budget: float | None = None, go_on: GoOn | None = None) -> Steps[int]:
    """Remove what is kept for a while only; the number removed.

    That is audit rows of removed sessions, retry tokens, samples, and what the HTTP API answered under an idempotency
    key.

    A transaction removes `batch` rows at most. With a `budget` in seconds, or a `go_on` that gives false when it is told
    the number removed so far, it may stop early.
    """
    _check(batch, go_on)
    started = context.monotonic()
    total = 0
    keep = context.settings.housekeeping
    attempts = max(context.settings.web.idempotency, LAPSE)  # one that is under way stays noted
    for table, seconds in (
        ("tombstones", keep.tombstones), ("tokens", keep.tokens), ("samples", keep.samples), ("attempts", attempts),
    ):  # fmt: skip
        while True:
            old = Trim(context.tenant_or_all, table, int(seconds), batch)
            asked, removed = yield from _paced(context, f"trim {table}", batch, old)
            total += removed or 0
            if removed is not None and removed < asked:
                break
            late = budget is not None and context.monotonic() - started >= budget
            if late or not (go_on is None or go_on(total)):
                return total
    return total


def apply_policies(context: Context, *, dry_run: bool = False, batch: int = FIRST) -> Steps[int]:
    """Stamp every session's deadlines anew, after a change of the policies; the number whose deadlines changed.

    A session's own `idle_timeout` stays.
    """
    after: tuple[str, str] | None = ("", "")
    total = 0
    while after is not None:
        after, changed = yield Restamp(context.tenant_or_all, context.policies, after, batch, dry_run)
        total += changed
    return total


_TERMINAL = states.TERMINAL
_LIVE_AND_TERMINAL = states.STATES


def _check_states(chosen: Sequence[str] | None) -> tuple[str, ...]:
    if chosen is None:
        return _TERMINAL
    for state in chosen:
        if state not in _LIVE_AND_TERMINAL:
            raise InvalidArgument(f"states: {state!r} is none of {', '.join(_LIVE_AND_TERMINAL)}")
    return tuple(dict.fromkeys(chosen))
