"""The lease that a write is made under: `Lease-Holder` and `Lease-Epoch`, as taking it answered them."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header

from lifecycle.errors import LeaseLost
from lifecycle.web.api.conditions import InvalidHeader
from lifecycle.web.api.paths import SessionId, decoded
from lifecycle.web.api.tenancy import Writing


@dataclass(frozen=True, slots=True)
class CarriedLease:
    """A lease that a client holds. Whether it still does is for the write's own condition to say."""

    tenant: str
    session_id: str
    holder: str
    epoch: int

    def fence(self) -> tuple[str, int]:
        """Holder and epoch."""
        return self.holder, self.epoch

    def lost(self, current: int) -> LeaseLost:
        """The error that it is lost: the session is at that epoch."""
        return LeaseLost(self.session_id, self.epoch, current)


async def _carried(
    session_id: SessionId,
    work: Writing,
    lease_holder: Annotated[
        str | None,
        Header(
            description="The holder of the lease under which this is written, percent-encoded where it is not ASCII.",
            openapi_examples={"holder": {"value": "worker-1"}},
        ),
    ] = None,
    lease_epoch: Annotated[
        str | None,
        Header(
            description="The lease's epoch. 409 `LeaseLost` once it is another's.",
            pattern=r"^[0-9]{1,18}$",
            openapi_examples={"epoch": {"value": "3"}},
        ),
    ] = None,
) -> CarriedLease | None:
    if lease_holder is None and lease_epoch is None:
        return None
    if not lease_holder or lease_epoch is None:
        raise InvalidHeader("Lease-Holder and Lease-Epoch go together: send both, or neither")
    try:
        holder = decoded(lease_holder)
    except ValueError as error:
        raise InvalidHeader(f"Lease-Holder {error}") from None
    tenant = work.caller.tenant
    return CarriedLease(tenant if isinstance(tenant, str) else "", session_id, holder, int(lease_epoch))


async def _required(lease: Annotated[CarriedLease | None, Depends(_carried)]) -> CarriedLease:
    if lease is None:
        raise InvalidHeader("say which lease in the headers Lease-Holder and Lease-Epoch")
    return lease


Held = Annotated[CarriedLease | None, Depends(_carried)]
HeldLease = Annotated[CarriedLease, Depends(_required)]
