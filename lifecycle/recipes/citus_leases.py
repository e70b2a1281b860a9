"""Signs of life and leases of many sessions at once on Citus: found by a plain read, written by their keys.

Nothing passes over what somebody else has locked: a write waits for it, and looks again at what it then finds.
"""

from datetime import timedelta
from functools import cache
from itertools import pairwise
from typing import Any, Final

import sqlalchemy as sa

from lifecycle.models import tables as t
from lifecycle.models.types import Timestamp
from lifecycle.operations import requests as r
from lifecycle.recipes import citus_keys as keys
from lifecycle.recipes.citus_sweeps import at_now
from lifecycle.recipes.keyed import FIELDS
from lifecycle.recipes.portable.base import NOW, Recipe, Row, bound, p, padded
from lifecycle.recipes.portable.claims import WINDOW, _in_turns, _waiting, claimable
from lifecycle.recipes.portable.together import by_tenant
from lifecycle.recipes.postgresql import ACTIVE_NOW, FREE, HELD_BY, LIVE
from lifecycle.recipes.postgresql_chunks import TEXTS
from lifecycle.recipes.statement import Statement

S = t.sessions.c
_ACTIVE: Final = {name: at_now(value) for name, value in ACTIVE_NOW.items()}
_AMONG: Final = sa.and_(S.tenant == p("tenant"), S.session_id == sa.any_(p("ids", TEXTS)))
_UNTIL: Any = p("until", Timestamp())
_ONE: Any = sa.literal_column("1")
_NONE: Any = sa.literal_column("0")

_TOUCH: Final = Statement(sa.update(t.sessions).where(_AMONG, LIVE).values(_ACTIVE).returning(S.session_id))


def touch(request: r.Touch) -> Recipe:
    """Push the deadlines of live sessions: the ids of those that were."""
    (clock,) = yield NOW, {}
    values = bound({"tenant": request.tenant, "ids": list(request.session_ids), "now": clock["now"]})
    touched = {row["session_id"] for row in (yield _TOUCH, values)}
    return [session_id for session_id in request.session_ids if session_id in touched]


def _renew() -> Statement:
    given = keys.listed(
        {"tenant": sa.Text(), "session_id": sa.Text(), "lease_epoch": sa.BigInteger(), "until": Timestamp()}
    )
    ours = [keys.same(t.sessions, given), HELD_BY, S.lease_epoch == given.c.lease_epoch]
    values = {"lease_expires_at": given.c.until, **_ACTIVE}
    changed = sa.update(t.sessions).where(*ours).values(values)
    return Statement(changed.returning(S.tenant, S.session_id, S.lease_epoch))


_RENEW: Final = _renew()


def renew_leases(request: r.RenewLeases) -> Recipe:
    """Prolong those that are still ours. Their time runs from before any wait, so it is rather too short."""
    (clock,) = yield NOW, {}
    at = clock["now"]
    asked = [
        {"tenant": tenant, "session_id": session_id, "lease_epoch": epoch, "until": at + timedelta(seconds=ttl)}
        for tenant, session_id, epoch, ttl in sorted(request.leases)
    ]
    values = keys.values_of(asked, ("tenant", "session_id", "lease_epoch", "until"))
    found = yield _RENEW, values | bound({"holder": request.holder, "now": at})
    return [(row["tenant"], row["session_id"], row["lease_epoch"]) for row in found]


_ALIVE: Final = Statement(
    sa.select(t.workers.c.worker_id).where(t.workers.c.beat_at > p("silent", Timestamp())).order_by(
        t.workers.c.worker_id
    )
)  # fmt: skip


@cache
def _left(tenant: bool, kinds: int, alive: int) -> Statement:
    """What those left who give no sign of life: whose names lie between those of the living, in the index's order."""
    among = S.kind.in_([p(f"kind_{i}") for i in range(kinds)])
    names: list[Any] = [p(f"alive_{i}") for i in range(alive)]
    between = [sa.and_(S.lease_holder > one, S.lease_holder < other) for one, other in pairwise(names)]
    dead = sa.or_(S.lease_holder < names[0], *between, S.lease_holder > names[-1]) if names else sa.true()
    chosen = sa.select(S.tenant, S.session_id, S.lease_expires_at.label("since")).where(
        *claimable(tenant, among), S.lease_holder.is_not(None), dead, S.runs.is_(True), S.available_at.is_(None),
        S.lease_expires_at <= p("now", Timestamp()),
    )  # fmt: skip
    return Statement(chosen.order_by(S.lease_expires_at).limit(sa.literal_column(str(WINDOW))))


def _take() -> Statement:
    """Lease what was found, where it still waits."""
    kinds = S.kind == sa.any_(p("kinds", TEXTS))
    left = sa.and_(S.available_at.is_(None), S.runs, S.lease_holder.is_not(None))
    waits = sa.or_(S.available_at <= p("now", Timestamp()), left)
    got_on = sa.or_(S.claimed_version.is_(None), S.version > S.claimed_version)
    values = {
        "lease_holder": p("holder", sa.Text()),
        "lease_epoch": S.lease_epoch + _ONE,
        "lease_expires_at": _UNTIL,
        "available_at": sa.null(),
        "claimed_version": S.version,
        "attempts": sa.case((got_on, _ONE), else_=S.attempts + _ONE),
        "rescues": sa.case((got_on, _NONE), else_=S.rescues) + sa.case((S.available_at.is_(None), _ONE), else_=_NONE),
        **_ACTIVE,
    }
    still = [_AMONG, *claimable(False, kinds), at_now(FREE), waits]
    return Statement(sa.update(t.sessions).where(*still).values(values).returning(*FIELDS))


_TAKE: Final = _take()


def claim_sessions(request: r.ClaimSessions) -> Recipe:
    """Look, a turn for each tenant, and lease as many as are wanted of those that are still to be had."""
    (clock,) = yield NOW, {}
    at = clock["now"]
    lease = timedelta(seconds=request.ttl)
    own = bound({"holder": request.holder, "now": at, "until": at + lease, "kinds": list(request.kinds)})
    values = bound({"now": at, "tenant": request.tenant})
    values |= bound({f"kind_{i}": kind for i, kind in enumerate(request.kinds)})
    shape = (request.tenant is not None, len(request.kinds))
    waiting = yield _waiting(*shape), values
    alive = padded([row["worker_id"] for row in (yield _ALIVE, bound({"silent": at - lease}))])
    left = yield _left(*shape, len(alive)), values | bound({f"alive_{i}": name for i, name in enumerate(alive)})
    waits = _in_turns([*waiting, *left])
    claimed: list[Row] = []
    while waits and len(claimed) < request.limit:
        room = request.limit - len(claimed)
        some, waits = [(row["tenant"], row["session_id"]) for row in waits[:room]], waits[room:]
        taken: dict[tuple[str, str], Row] = {}
        for tenant, ids in by_tenant(some):
            for row in (yield _TAKE, own | bound({"tenant": tenant, "ids": ids})):
                taken[tenant, row["session_id"]] = row
        claimed += [taken[key] for key in some if key in taken]
    return claimed
