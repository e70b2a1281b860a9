"""Sweeps: what is due is expired or removed in batches, one transaction each, for as long as the budget lasts."""

from collections.abc import Sequence
from typing import Any

from lifecycle import states
from lifecycle.errors import InvalidArgument, SessionNotFound
from lifecycle.models.reads import SweepReport
from lifecycle.operations.attempts import LAPSE
from lifecycle.operations.context import Context, check_count
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

BATCH = 500
_REMOVING = ("prune_sessions", "delete_ghosts")
_LISTED = 1000


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
) -> Steps[SweepReport]:
    """Run one sweep and report. The dry run counts with the predicate that the write repeats."""
    check_count(batch, "batch", 1, 10_000)
    started = context.monotonic()
    ids: list[str] = []
    count = batches = 0
    complete = True
    archive = context.archive if due.sweep in _REMOVING else None
    if dry_run:
        count, oldest, at = yield CountDue(due)
    else:
        oldest, at = yield OldestDue(due)
        while oldest is not None:
            done = yield SweepBatch(due, batch, reason, actor, retention, archive)
            batches += bool(done)
            count += len(done)
            ids.extend(done[: _LISTED - len(ids)])
            if len(done) < batch:
                break
            if budget is not None and context.monotonic() - started >= budget:
                complete = False
                break
            if pause:
                yield Pause(pause)
    return SweepReport.of(
        {
            "sweep": due.sweep,
            "dry_run": dry_run,
            "count": count,
            "batches": batches,
            "complete": complete,
            "oldest_due": oldest,
            "backlog_age": max(0.0, (at - oldest).total_seconds()) if oldest else 0.0,
            "seconds": context.monotonic() - started,
            "session_ids": ids,
        }
    )


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
) -> Steps[SweepReport]:
    """Expire the live sessions whose deadline has passed: idle too long, or too old.

    Never a protected or leased one, nor one touched before the write. `budget` is in seconds, `pause` between
    batches too; `batch` in sessions. The first 1,000 ids are in the report.
    """
    due = Due(context.tenant_or_all, "expire_idle", kind=kind, where=where)
    retention = context.policies.retention_map("expired")
    options: dict[str, Any] = {"dry_run": dry_run, "batch": batch, "budget": budget, "pause": pause, "actor": actor}
    return (yield from sweep(context, due, reason="idle", retention=retention, **options))


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
    options: dict[str, Any] = {"dry_run": dry_run, "batch": batch, "budget": budget, "pause": pause, "actor": actor}
    return (yield from sweep(context, due, reason="pruned", **options))


def delete_ghosts(
    context: Context,
    *,
    dry_run: bool = False,
    batch: int = BATCH,
    budget: float | None = None,
    pause: float = 0.0,
    where: Any = None,
    actor: str | None = None,
) -> Steps[SweepReport]:
    """Remove live sessions that got neither a message nor a saved state within their kind's time for that."""
    due = Due(context.tenant_or_all, "delete_ghosts", where=where)
    options: dict[str, Any] = {"dry_run": dry_run, "batch": batch, "budget": budget, "pause": pause, "actor": actor}
    return (yield from sweep(context, due, reason="ghost", **options))


def expire_approvals(
    context: Context,
    *,
    dry_run: bool = False,
    batch: int = BATCH,
    budget: float | None = None,
    pause: float = 0.0,
    actor: str | None = None,
) -> Steps[SweepReport]:
    """Expire pending approvals whose time has passed; a session that one suspended goes on and finds it expired."""
    due = Due(context.tenant_or_all, "expire_approvals")
    options: dict[str, Any] = {"dry_run": dry_run, "batch": batch, "budget": budget, "pause": pause, "actor": actor}
    return (yield from sweep(context, due, reason="approval expired", **options))


def reap_connections(
    context: Context,
    *,
    silent_for: Duration = "5m",
    dry_run: bool = False,
    batch: int = BATCH,
    budget: float | None = None,
    pause: float = 0.0,
) -> Steps[SweepReport]:
    """Remove the connections that have been silent for so long."""
    due = Due(context.tenant_or_all, "reap_connections", seconds=_duration(silent_for, "silent_for"))
    return (yield from sweep(context, due, reason=None, dry_run=dry_run, batch=batch, budget=budget, pause=pause))


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
) -> Steps[SweepReport]:
    """End the live sessions without activity for `max_age`, giving `reason`."""
    due = Due(
        context.tenant_or_all, "cleanup_stale_sessions", kind=kind, states=states.LIVE,
        seconds=_duration(max_age, "max_age"),
    )  # fmt: skip
    retention = context.policies.retention_map("ended")
    options: dict[str, Any] = {"dry_run": dry_run, "batch": batch, "budget": budget, "actor": actor}
    return (yield from sweep(context, due, reason=context.check_long(reason, "reason"), retention=retention, **options))


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


def trim(context: Context, *, batch: int = 1000, budget: float | None = None) -> Steps[int]:
    """Remove what is kept for a while only; the number removed.

    That is audit rows of removed sessions, retry tokens, samples, and what the HTTP API answered under an idempotency
    key.

    With a `budget` in seconds it may stop early; it then removed at least `batch` rows.
    """
    started = context.monotonic()
    total = 0
    keep = context.settings.housekeeping
    attempts = max(context.settings.web.idempotency, LAPSE)  # one that is under way stays noted
    for table, seconds in (
        ("tombstones", keep.tombstones), ("tokens", keep.tokens), ("samples", keep.samples), ("attempts", attempts),
    ):  # fmt: skip
        while True:
            removed: int = yield Trim(context.tenant_or_all, table, int(seconds), batch)
            total += removed
            if removed < batch:
                break
            if budget is not None and context.monotonic() - started >= budget:
                return total
    return total


def apply_policies(context: Context, *, dry_run: bool = False, batch: int = BATCH) -> Steps[int]:
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
