"""The lease a write is made under: what of it goes into the write's own condition."""

from typing import Protocol

from lifecycle.errors import InvalidArgument
from lifecycle.operations.requests import Fence


class Held(Protocol):
    """A lease as `manager.lease` gives it."""

    @property
    def tenant(self) -> str:
        """Whose session it is on."""

    @property
    def session_id(self) -> str:
        """Which session it is on."""

    def fence(self) -> Fence:
        """Holder and epoch. Raises `LeaseLost` once this process can no longer trust it."""


def fence_of(tenant: str, session_id: str, lease: Held | None) -> Fence | None:
    """What a write under the lease is refused by; None without one."""
    if lease is None:
        return None
    if not callable(getattr(lease, "fence", None)):
        raise InvalidArgument(f"lease must be one that manager.lease() or claim() gave, not {type(lease).__name__}")
    if (lease.tenant, lease.session_id) != (tenant, session_id):
        raise InvalidArgument(f"lease is on session {lease.session_id!r}, not on {session_id!r}")
    return lease.fence()
