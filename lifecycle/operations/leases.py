"""Leases: taken, prolonged and given back. Only one holder has a session at a time, and its epoch tells them apart."""

from collections.abc import Sequence
from typing import Any

from lifecycle import states
from lifecycle.errors import InvalidArgument
from lifecycle.models.reads import Session
from lifecycle.operations import rows
from lifecycle.operations.context import Context, check_count
from lifecycle.operations.refusal import explain
from lifecycle.operations.requests import AcquireLease, ClaimSessions, Fence, ReleaseLease, RenewLeases
from lifecycle.operations.typing import Steps

_SHORTEST, _LONGEST = 0.1, 86_400.0
Renewal = tuple[str, str, int, float]


def acquire_lease(context: Context, session_id: str, *, holder: str, ttl: float = 30.0) -> Steps[int]:
    """Take the lease of an active or suspended session for `ttl` seconds; its epoch, which no other lease of it has.

    `lease` keeps it alive too; this call is for who beats himself. Raises `SessionNotFound`, `InvalidTransition`
    (it is finished), `SessionBusy`.
    """
    session_id = context.check_id(session_id)
    holder = context.check_id(holder, "holder")
    ttl = check_ttl(ttl)
    epoch = yield AcquireLease(context.tenant, session_id, holder, ttl)
    if epoch is None:
        yield from explain(context, session_id, "lease", needs=states.LIVE)
    return int(epoch)


def renew_leases(context: Context, leases: Sequence[Renewal], *, holder: str) -> Steps[list[tuple[str, str, int]]]:
    """Prolong leases, given as (tenant, session id, epoch, seconds); the (tenant, id, epoch) of those still held."""
    if context.tenant_or_all is not None and any(tenant != context.tenant for tenant, *_ in leases):
        raise InvalidArgument("leases: this manager is open for one tenant, and they are of others too")
    if not leases:
        return []
    renewed: list[tuple[str, str, int]] = yield RenewLeases(holder, tuple(sorted(leases)))
    return renewed


def release_lease(context: Context, session_id: str, *, holder: str, epoch: int) -> Steps[bool]:
    """Give a lease back; whether it was still the holder's."""
    fence: Fence = (context.check_id(holder, "holder"), epoch)
    released: bool = yield ReleaseLease(context.tenant, context.check_id(session_id), fence)
    return released


def claim_sessions(
    context: Context, kinds: Sequence[str], *, holder: str, ttl: float = 30.0, limit: int = 1
) -> Steps[list[Session]]:
    """Lease up to `limit` sessions of these kinds that wait for a runner; each with its new `lease_epoch`.

    Those wait whose `available_at` has come, and those whose runner died: it gave no sign of life, and its lease ran
    out. Those that wait longest come first, a turn for each tenant.
    """
    if isinstance(kinds, str) or not kinds:
        raise InvalidArgument(f"kinds must be a list of kinds, not {kinds!r}")
    chosen = tuple(context.check_id(kind, "kinds") for kind in dict.fromkeys(kinds))
    check_count(limit, "limit", 1, 1000)
    found = yield ClaimSessions(
        context.tenant_or_all, chosen, context.check_id(holder, "holder"), check_ttl(ttl), limit
    )
    return [rows.session(row) for row in found]


def hand_back(
    context: Context, session_id: str, *, holder: str, epoch: int, retry_in: float, forget: bool = False
) -> Steps[bool]:
    """Give a claimed session back so that a runner takes it again in `retry_in` seconds; whether it was still ours.

    With `forget` the claim does not count as an attempt.
    """
    fence: Fence = (context.check_id(holder, "holder"), epoch)
    request = ReleaseLease(context.tenant, context.check_id(session_id), fence, float(retry_in), forget)
    released: bool = yield request
    return released


def check_ttl(ttl: Any, name: str = "ttl") -> float:
    """A lease's time to live in seconds."""
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not _SHORTEST <= ttl <= _LONGEST:
        raise InvalidArgument(f"{name} must be {_SHORTEST:g} to {_LONGEST:g} seconds, not {ttl!r}")
    return float(ttl)
