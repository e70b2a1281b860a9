"""Leases on PostgreSQL: taken, prolonged and given back in one statement each."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from lifecycle.models import tables as t
from lifecycle.models.types import Timestamp, now
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import key, of_key, p
from lifecycle.recipes.postgresql import ACTIVE_NOW, FENCED, FREE, LIVE, TEXTS
from lifecycle.recipes.statement import Single, Statement

S = t.sessions.c


def _until(seconds: Any) -> Any:
    return sa.type_coerce(now() + seconds * sa.literal_column("interval '1 second'"), Timestamp())


_ACQUIRE = Statement(
    sa.update(t.sessions)
    .where(of_key(t.sessions), LIVE, FREE)
    .values(
        {
            "lease_holder": p("holder", sa.Text()),
            "lease_epoch": S.lease_epoch + sa.literal_column("1"),
            "lease_expires_at": _until(sa.cast(p("ttl"), sa.Double())),
            **ACTIVE_NOW,
        }
    )
    .returning(S.lease_epoch)
)
_RELEASE = Statement(
    sa.update(t.sessions)
    .where(of_key(t.sessions), FENCED)
    .values({"lease_holder": sa.null(), "lease_expires_at": sa.null()})
    .returning(S.session_id)
)


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
        .where(S.lease_holder == p("holder", sa.Text()), S.lease_epoch == given.c.epoch)
        .order_by(S.tenant, S.session_id)
        .with_for_update(of=t.sessions)
        .cte("locked")
    )
    return Statement(
        sa.update(t.sessions)
        .where(S.tenant == locked.c.tenant, S.session_id == locked.c.session_id)
        .values({"lease_expires_at": _until(locked.c.ttl), **ACTIVE_NOW})
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
    r.ReleaseLease: Single(
        lambda _: _RELEASE,
        lambda request: key(request) | {"p_holder": request.fence[0], "p_epoch": request.fence[1]},
        lambda _, rows: bool(rows),
    ),
}
