"""Requests about leases."""

from dataclasses import dataclass

from lifecycle.operations.requests.base import Fence, OfSession, Request


@dataclass(slots=True)
class AcquireLease(OfSession):
    """Take the lease of a live session that nobody holds: its new epoch, or None if refused."""

    holder: str
    ttl: float


@dataclass(slots=True)
class RenewLeases(Request):
    """Prolong leases that are still the holder's: the (tenant, session id, epoch) of those that are.

    `leases` are (tenant, session id, epoch, seconds to live).
    """

    holder: str
    leases: tuple[tuple[str, str, int, float], ...]


@dataclass(slots=True)
class ReleaseLease(OfSession):
    """Give a lease back: whether it was still the holder's.

    With `retry_in` the session waits for a runner again in so many seconds; with `forget` the claim does not count.
    """

    fence: Fence
    retry_in: float | None = None
    forget: bool = False


@dataclass(slots=True)
class ClaimSessions(Request):
    """Lease sessions that wait for a runner, or whose runner died: their rows, each with its new epoch.

    A tenant's second waits until every other's first had its turn.
    """

    tenant: str | None
    kinds: tuple[str, ...]
    holder: str
    ttl: float
    limit: int
