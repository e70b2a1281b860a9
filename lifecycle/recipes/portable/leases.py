"""Leases on any database: taken, prolonged and given back."""

from datetime import timedelta

from lifecycle import states
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import LOCK_SHORT, SHORT, Recipe, Row, active_now, leased, lock, set_row
from lifecycle.recipes.portable.together import alike, lock_these, set_these


def acquire_lease(request: r.AcquireLease) -> Recipe:
    """Take the lease unless somebody holds it; the epoch grows."""
    row = yield from lock(request, LOCK_SHORT)
    if row is None or row["state"] not in states.LIVE or leased(row):
        return None
    epoch = row["lease_epoch"] + 1
    until = row["now"] + timedelta(seconds=request.ttl)
    yield from set_row(
        row, {"lease_holder": request.holder, "lease_epoch": epoch, "lease_expires_at": until, **active_now(row)}
    )
    return epoch


def renew_leases(request: r.RenewLeases) -> Recipe:
    """Prolong those that are still ours, in key order: a beat may be for thousands."""
    asked = {(tenant, session_id): (epoch, ttl) for tenant, session_id, epoch, ttl in request.leases}
    ours: list[tuple[Row, Row]] = []
    for row in (yield from lock_these(asked, SHORT)):
        epoch, ttl = asked[row["tenant"], row["session_id"]]
        if (row["lease_holder"], row["lease_epoch"]) == (request.holder, epoch):
            ours.append((row, {"lease_expires_at": row["now"] + timedelta(seconds=ttl), **active_now(row)}))
    for values, rows in alike(ours):
        yield from set_these(rows, values)
    return [(row["tenant"], row["session_id"], row["lease_epoch"]) for row, _ in ours]


def release_lease(request: r.ReleaseLease) -> Recipe:
    """Clear it where it is still ours; the epoch stays."""
    row = yield from lock(request)
    if row is None or (row["lease_holder"], row["lease_epoch"]) != request.fence:
        return False
    values: Row = {"lease_holder": None, "lease_expires_at": None}
    if request.retry_in is not None:
        values["available_at"] = row["now"] + timedelta(seconds=request.retry_in)
    if request.forget:
        values["attempts"] = max(0, row["attempts"] - 1)
    yield from set_row(row, values)
    return True
