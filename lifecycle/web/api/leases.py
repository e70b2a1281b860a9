"""Leases: one holder has a session at a time. Its epoch goes with what is written under it, and tells late writes."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from lifecycle.errors import SessionNotFound
from lifecycle.ids import uuid7
from lifecycle.models.reads import Session
from lifecycle.web.api import documents as d
from lifecycle.web.api.answers import answer, items, location, nothing
from lifecycle.web.api.held import HeldLease
from lifecycle.web.api.idempotency import Attempted
from lifecycle.web.api.inputs import Claim, LeaseWish, Renewal
from lifecycle.web.api.paths import SessionId
from lifecycle.web.api.routes import ApiRoute
from lifecycle.web.api.tenancy import Reading, Work, Writing
from lifecycle.web.problems import Refused

router = APIRouter(route_class=ApiRoute, tags=["leases"])


class LeaseNotFound(Refused):
    """Nobody holds the session."""

    status = 404


@router.get("/sessions/{session_id}/lease", response_model=d.LeaseTaken, responses=d.read(d.NO_LEASE))
async def get_lease(session_id: SessionId, work: Reading) -> Response:
    """Who holds the session, and until when."""
    return answer(await _lease(work, session_id))


@router.post(
    "/sessions/{session_id}/lease", status_code=201, response_model=d.LeaseTaken,
    responses=d.post(d.TOOK_LEASE, d.NO_SESSION, d.MOVED, d.BUSY),
)  # fmt: skip
async def acquire_lease(
    session_id: SessionId, work: Writing, attempt: Attempted, body: LeaseWish | None = None
) -> Response:
    """Take the session's lease for `ttl` seconds. Renew it before that, at a third of the time, say."""
    body = body or LeaseWish()
    holder = body.holder or attempt.derived_id() or uuid7()
    epoch = await work.one.acquire_lease(session_id, holder=holder, ttl=body.ttl)
    lease = await _lease(work, session_id)
    # Whoever took over since then has another epoch: what was taken is told all the same.
    lease |= {"holder": holder, "epoch": epoch}
    return answer(lease, 201, {"Location": location("sessions", session_id, "lease")})


@router.put("/sessions/{session_id}/lease", response_model=d.LeaseTaken, responses=d.write(d.NO_SESSION, d.LOST))
async def renew_lease(session_id: SessionId, work: Writing, lease: HeldLease, body: Renewal | None = None) -> Response:
    """Prolong the lease that the headers name: it lives `ttl` seconds from now on."""
    ttl = (body or Renewal()).ttl
    renewed = await work.one.renew_leases([(lease.tenant, session_id, lease.epoch, ttl)], holder=lease.holder)
    if not renewed:
        raise await _lost(work, lease)
    return answer(await _lease(work, session_id) | {"holder": lease.holder, "epoch": lease.epoch})


@router.delete("/sessions/{session_id}/lease", status_code=204, responses=d.write(d.NO_SESSION, d.LOST))
async def release_lease(
    session_id: SessionId,
    work: Writing,
    lease: HeldLease,
    retry_in: Annotated[
        float | None,
        Query(ge=0, le=31_536_000, description="Have it claimed again in so many seconds, if it was claimed."),
    ] = None,
    forget: Annotated[bool, Query(description="With `retry_in`: the claim does not count as an attempt.")] = False,
) -> Response:
    """Give the lease back."""
    own: dict[str, Any] = {"holder": lease.holder, "epoch": lease.epoch}
    if retry_in is None:
        released = await work.one.release_lease(session_id, **own)
    else:
        released = await work.one.hand_back(session_id, **own, retry_in=retry_in, forget=forget)
    if not released:
        raise await _lost(work, lease)
    return nothing()


@router.post("/sessions:claim", response_model=d.Items[Session], responses=d.post())
async def claim_sessions(body: Claim, work: Writing, attempt: Attempted) -> Response:
    """Lease up to `limit` sessions of these kinds that wait to be worked on: `lease_holder` and `lease_epoch` tell how."""
    holder = body.holder or attempt.derived_id() or uuid7()
    return items(await work.manager.claim_sessions(body.kinds, holder=holder, ttl=body.ttl, limit=body.limit))


async def _lease(work: Work, session_id: str) -> dict[str, object]:
    session = await work.one.get_session(session_id)
    if session is None:
        raise SessionNotFound(session_id)
    if session.lease_holder is None:
        raise LeaseNotFound(f"nobody holds session {session_id!r}")
    return {
        "session_id": session_id,
        "holder": session.lease_holder,
        "epoch": session.lease_epoch,
        "expires_at": session.lease_expires_at,
    }


async def _lost(work: Work, lease: HeldLease) -> Exception:
    session = await work.one.get_session(lease.session_id)
    return SessionNotFound(lease.session_id) if session is None else lease.lost(session.lease_epoch)
