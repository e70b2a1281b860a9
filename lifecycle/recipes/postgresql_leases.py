"""Leases on PostgreSQL: taken, prolonged and given back in one statement each."""

from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from lifecycle.models import tables as t
from lifecycle.models.types import now
from lifecycle.operations import requests as r
from lifecycle.recipes.keyed import FIELDS
from lifecycle.recipes.portable.base import key, of_key, p
from lifecycle.recipes.portable.claims import WINDOW, claimable, dead_holders
from lifecycle.recipes.postgresql import ACTIVE_NOW, FENCED, FREE, HELD_BY, LIVE, after
from lifecycle.recipes.postgresql_chunks import TEXTS
from lifecycle.recipes.statement import Single, Statement

S = t.sessions.c


_ACQUIRE = Statement(
    sa.update(t.sessions)
    .where(of_key(t.sessions), LIVE, FREE)
    .values(
        {
            "lease_holder": p("holder", sa.Text()),
            "lease_epoch": S.lease_epoch + sa.literal_column("1"),
            "lease_expires_at": after(sa.cast(p("ttl"), sa.Double())),
            **ACTIVE_NOW,
        }
    )
    .returning(S.lease_epoch)
)


@cache
def _release(retry: bool, forget: bool) -> Statement:
    values: dict[str, Any] = {"lease_holder": sa.null(), "lease_expires_at": sa.null()}
    if retry:
        values["available_at"] = after(sa.cast(p("retry_in"), sa.Double()))
    if forget:
        values["attempts"] = sa.func.greatest(sa.literal_column("0"), S.attempts - sa.literal_column("1"))
    return Statement(sa.update(t.sessions).where(of_key(t.sessions), FENCED).values(values).returning(S.session_id))


def _claim(tenant: bool) -> Statement:
    """Pick what waits and what the dead left, a turn for each tenant; lock, look again, lease."""
    kinds = S.kind == sa.any_(p("kinds", TEXTS))
    window: Any = sa.literal_column(str(WINDOW))
    waiting = (
        sa.select(S.tenant, S.session_id, S.available_at.label("since"))
        .where(*claimable(tenant, kinds), S.available_at <= now())
        .order_by(S.available_at)
        .limit(window)
        .subquery("waiting")
    )
    dead = dead_holders(after(-sa.cast(p("ttl"), sa.Double()))).subquery("dead")
    # Lateral, with a limit of its own: the dead come first, and only what they held is read.
    orphans = (
        sa.select(S.tenant, S.session_id, S.lease_expires_at.label("since"))
        .where(*claimable(tenant, kinds), S.lease_holder == dead.c.holder, S.runs, S.available_at.is_(None))
        .where(S.lease_expires_at <= now())
        .order_by(S.lease_expires_at)
        .limit(window)
        .correlate(dead)
        .lateral("orphans")
    )
    left = sa.select(orphans.c.tenant, orphans.c.session_id, orphans.c.since).select_from(dead.join(orphans, sa.true()))
    found = sa.union_all(sa.select(waiting), left).subquery("found")
    turn = sa.func.row_number().over(partition_by=found.c.tenant, order_by=found.c.since)
    ranked = sa.select(found.c.tenant, found.c.session_id, found.c.since, turn.label("turn")).subquery("ranked")
    # A CASE, which no index serves: the rows are to be found by the keys that were picked.
    ready = sa.case(
        (S.available_at.is_(None), sa.and_(S.runs, S.lease_holder.is_not(None))), else_=S.available_at <= now()
    )
    picked = (
        sa.select(S.tenant, S.session_id)
        .join(ranked, sa.and_(S.tenant == ranked.c.tenant, S.session_id == ranked.c.session_id))
        .where(*claimable(tenant, kinds), FREE, ready)
        .order_by(ranked.c.turn, ranked.c.since)
        .limit(p("limit", sa.Integer()))
        .with_for_update(of=t.sessions, skip_locked=True)
        .cte("picked")
    )
    got_on = sa.or_(S.claimed_version.is_(None), S.version > S.claimed_version)
    none: Any = sa.literal_column("0")
    one: Any = sa.literal_column("1")
    return Statement(
        sa.update(t.sessions)
        .where(S.tenant == picked.c.tenant, S.session_id == picked.c.session_id)
        .values(
            {
                "lease_holder": p("holder", sa.Text()),
                "lease_epoch": S.lease_epoch + one,
                "lease_expires_at": after(sa.cast(p("ttl"), sa.Double())),
                "available_at": sa.null(),
                "claimed_version": S.version,
                "attempts": sa.case((got_on, one), else_=S.attempts + one),
                "rescues": sa.case((got_on, none), else_=S.rescues)
                + sa.case((S.available_at.is_(None), one), else_=none),
                **ACTIVE_NOW,
            }
        )
        .returning(*FIELDS)
    )


_CLAIM = {tenant: _claim(tenant) for tenant in (False, True)}


def _bind_claim(request: r.ClaimSessions) -> dict[str, Any]:
    return {
        "p_tenant": request.tenant,
        "p_kinds": list(request.kinds),
        "p_holder": request.holder,
        "p_ttl": request.ttl,
        "p_limit": request.limit,
    }


def _renew() -> Statement:
    given = (
        sa.func.unnest(
            p("tenants", TEXTS), p("ids", TEXTS), p("epochs", ARRAY(sa.BigInteger())), p("ttls", ARRAY(sa.Double()))
        )
        .table_valued("tenant", "session_id", "epoch", "ttl", name="given")
        .render_derived()
    )
    # In key order, so that two batches never wait for each other in a circle; a row that somebody else is writing is
    # waited for: passing it over would lose its lease.
    locked = (
        sa.select(S.tenant, S.session_id, given.c.ttl)
        .join(given, sa.and_(S.tenant == given.c.tenant, S.session_id == given.c.session_id))
        .where(HELD_BY, S.lease_epoch == given.c.epoch)
        .order_by(S.tenant, S.session_id)
        .with_for_update(of=t.sessions)
        .cte("locked")
    )
    return Statement(
        sa.update(t.sessions)
        .where(S.tenant == locked.c.tenant, S.session_id == locked.c.session_id)
        .values({"lease_expires_at": after(locked.c.ttl), **ACTIVE_NOW})
        .returning(S.tenant, S.session_id, S.lease_epoch)
    )


_RENEW = _renew()


def _bind_renew(request: r.RenewLeases) -> dict[str, Any]:
    tenants, ids, epochs, ttls = zip(*request.leases, strict=True)
    return {
        "p_holder": request.holder,
        "p_tenants": list(tenants),
        "p_ids": list(ids),
        "p_epochs": list(epochs),
        "p_ttls": list(ttls),
    }


SINGLES: dict[type[r.Request], Single] = {
    r.AcquireLease: Single(
        lambda _: _ACQUIRE,
        lambda request: key(request) | {"p_holder": request.holder, "p_ttl": request.ttl},
        lambda _, rows: rows[0]["lease_epoch"] if rows else None,
    ),
    r.RenewLeases: Single(
        lambda _: _RENEW,
        _bind_renew,
        lambda _, rows: [(row["tenant"], row["session_id"], row["lease_epoch"]) for row in rows],
    ),
    r.ClaimSessions: Single(lambda request: _CLAIM[request.tenant is not None], _bind_claim, lambda _, rows: rows),
    r.ReleaseLease: Single(
        lambda request: _release(request.retry_in is not None, request.forget),
        lambda request: (
            key(request) | {"p_holder": request.fence[0], "p_epoch": request.fence[1], "p_retry_in": request.retry_in}
        ),
        lambda _, rows: bool(rows),
    ),
}
