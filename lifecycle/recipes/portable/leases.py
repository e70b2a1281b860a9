"""Leases on any database: taken, prolonged and given back."""

from datetime import timedelta

from lifecycle import states
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import LOCK_SHORT, Recipe, Row, active_now, leased, lock, set_row


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
    """Prolong each that is still ours, in key order."""
    renewed = []
    for tenant, session_id, epoch, ttl in request.leases:
        found = yield LOCK_SHORT, {"p_tenant": tenant, "p_session_id": session_id}
        if not found or (found[0]["lease_holder"], found[0]["lease_epoch"]) != (request.holder, epoch):
            continue
        row = found[0]
        yield from set_row(row, {"lease_expires_at": row["now"] + timedelta(seconds=ttl), **active_now(row)})
        renewed.append((tenant, session_id, epoch))
    return renewed


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
