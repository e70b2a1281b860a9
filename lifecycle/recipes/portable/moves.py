"""Transitions and signs of life on any database."""

import json
from typing import Any

from lifecycle import deadlines, states
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import (
    SHORT,
    Recipe,
    Row,
    active_now,
    audit_row,
    barred,
    changed_now,
    lock,
    set_row,
)
from lifecycle.recipes.portable.together import alike, lock_these, set_these


def seconds_for(kind: str, limits: r.SecondsMap) -> int | None:
    """A kind's seconds from a map as policies make it."""
    known: dict[str, int | None] = json.loads(limits[0])
    return known.get(kind, limits[1])


def moved_columns(row: Row, request: Any, target: str) -> Row:
    """What a transition writes into the session's row."""
    values: Row = {
        "state": target,
        "reason": request.reason,
        "version": row["version"] + 1,
        "next_seq": row["next_seq"] + 1,
        **changed_now(row),
        "last_active_at": max(row["now"], row["last_active_at"]),
    }
    fence = getattr(request, "fence", None)
    if fence is None or target in states.TERMINAL:
        # Somebody else's transition ends the lease, and a later write of its holder is refused.
        taken = fence is None and row["lease_holder"] is not None
        values |= {"lease_holder": None, "lease_expires_at": None, "lease_epoch": row["lease_epoch"] + taken}
    if target in states.TERMINAL:
        retention = seconds_for(row["kind"], request.retention)
        values |= {
            "ended_at": row["now"],
            "prune_at": deadlines.later(row["now"], retention),
            "expires_at": None,
            "ghost_at": None,
            "available_at": None,
        }
        return values
    max_age_at = row["max_age_at"]
    if row["state"] in states.TERMINAL:
        max_age_at = deadlines.later(row["now"], seconds_for(row["kind"], request.max_age))
    idle = row["idle_active"] if target == "active" else row["idle_suspended"]
    if target == "active":
        # What runners work on waits for one again; an idle chat does not.
        values |= {"available_at": row["now"] if row["runs"] else row["available_at"], "attempts": 0, "rescues": 0}
    else:
        values["available_at"] = None
    return values | {
        "ended_at": None,
        "prune_at": None,
        "max_age_at": max_age_at,
        "expires_at": deadlines.expiry(row["now"], idle, max_age_at),
    }


def move(request: r.Move) -> Recipe:
    """Compare the state and set the new one, with its audit row."""
    row = yield from lock(request)
    wanted = states.transition(request.trigger)
    if row is None or row["state"] not in wanted.sources:
        return None
    if request.fence is not None and barred(row, request.fence):
        return None
    if request.expected is not None and row["version"] != request.expected:
        return None
    yield from move_locked(row, request, request.trigger)
    return row


def move_locked(row: Row, request: Any, trigger: str) -> Recipe:
    """Fire a trigger on a row that is locked already."""
    source, seq = row["state"], row["next_seq"]
    target = states.transition(trigger).target
    yield from set_row(row, moved_columns(row, request, target))
    yield audit_row(row, seq, trigger, source, target, row["version"], reason=request.reason, actor=request.actor)


def touch(request: r.Touch) -> Recipe:
    """Push the deadlines of live sessions, in key order."""
    keys = [(request.tenant, session_id) for session_id in request.session_ids]
    found = yield from lock_these(keys, SHORT, skip=request.passing)
    live = [(row, active_now(row)) for row in found if row["deleted_at"] is None and row["state"] in states.LIVE]
    for values, rows in alike(live):
        yield from set_these(rows, values)
    return [row["session_id"] for row, _ in live]
