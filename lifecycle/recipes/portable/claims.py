"""Claims on any database: what waits for a runner, and what a dead one left."""

from datetime import timedelta
from functools import cache
from typing import Any

import sqlalchemy as sa

from lifecycle.models import tables as t
from lifecycle.models.types import Timestamp
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import NOW, Recipe, Row, active_now, bound, is_in, leased, p
from lifecycle.recipes.portable.together import Key, alike, lock_these, set_these
from lifecycle.recipes.statement import Statement

S = t.sessions.c
# So many of those that wait longest are looked at, to give each tenant its turn.
WINDOW = 500


def claimable(tenant: bool, kinds: Any) -> list[Any]:
    """What holds for all that a runner may take, besides when."""
    chosen = [S.deleted_at.is_(None), is_in(S.state, ("active",)), kinds]
    return [*chosen, S.tenant == p("tenant")] if tenant else chosen


@cache
def _waiting(tenant: bool, kinds: int) -> Statement:
    among = S.kind.in_([p(f"kind_{i}") for i in range(kinds)])
    return Statement(
        sa.select(S.tenant, S.session_id, S.available_at.label("since"))
        .where(*claimable(tenant, among), S.available_at <= p("now", Timestamp()))
        .order_by(S.available_at)
        .limit(sa.literal_column(str(WINDOW)))
    )


def dead_holders(silent: Any) -> Any:
    """Who holds leases and gives no sign of life as a worker: their leases are looked at, and nobody else's.

    The distinct holders are read from their index one by one, not lease by lease.
    """
    h = sa.select(sa.func.min(S.lease_holder).label("holder")).where(S.lease_holder.is_not(None))
    holders = h.cte("holders", recursive=True)
    following = (
        sa.select(sa.func.min(S.lease_holder))
        .where(S.lease_holder > holders.c.holder)
        .correlate(holders)
        .scalar_subquery()
    )
    holders = holders.union_all(sa.select(following).where(holders.c.holder.is_not(None)))
    alive = sa.select(1).where(t.workers.c.worker_id == holders.c.holder, t.workers.c.beat_at > silent)
    return sa.select(holders.c.holder).where(holders.c.holder.is_not(None), ~alive.exists())


_DEAD = Statement(dead_holders(p("silent", Timestamp())))


@cache
def _left_by(tenant: bool, kinds: int) -> Statement:
    among = S.kind.in_([p(f"kind_{i}") for i in range(kinds)])
    return Statement(
        sa.select(S.tenant, S.session_id, S.lease_expires_at.label("since"))
        .where(
            *claimable(tenant, among), S.lease_holder == p("holder"), S.runs.is_(True), S.available_at.is_(None),
            S.lease_expires_at <= p("now", Timestamp()),
        )
        .order_by(S.lease_expires_at)
        .limit(sa.literal_column(str(WINDOW)))
    )  # fmt: skip


def claim_sessions(request: r.ClaimSessions) -> Recipe:
    """Look without locks, then lock as many as are wanted and look again."""
    (clock,) = yield NOW, {}
    at = clock["now"]
    values = bound({"now": at, "silent": at - timedelta(seconds=request.ttl), "tenant": request.tenant})
    values |= bound({f"kind_{i}": kind for i, kind in enumerate(request.kinds)})
    shape = (request.tenant is not None, len(request.kinds))
    waiting = yield _waiting(*shape), values
    dead = yield _DEAD, values
    left: list[Row] = []
    for one in dead:
        left += yield _left_by(*shape), values | {"p_holder": one["holder"]}
    waits = _in_turns([*waiting, *left])
    claimed: list[Row] = []
    while waits and len(claimed) < request.limit:
        room = request.limit - len(claimed)
        some, waits = waits[:room], waits[room:]
        claimed += yield from _claim_among([(row["tenant"], row["session_id"]) for row in some], request)
    return claimed


def _in_turns(found: list[Row]) -> list[Row]:
    turns: dict[str, int] = {}
    ranked: list[tuple[int, Any, int, Row]] = []
    for row in sorted(found, key=lambda row: row["since"]):
        turn = turns[row["tenant"]] = turns.get(row["tenant"], 0) + 1
        ranked.append((turn, row["since"], len(ranked), row))
    return [row for *_, row in sorted(ranked, key=lambda one: one[:3])]


def _may_be_claimed(row: Row, request: r.ClaimSessions) -> bool:
    if row["deleted_at"] is not None or row["state"] != "active" or row["kind"] not in request.kinds or leased(row):
        return False
    if row["available_at"] is not None:
        return bool(row["available_at"] <= row["now"])
    return bool(row["runs"]) and row["lease_holder"] is not None


# What is reckoned of each one's own row; the version is that of the claim until a save.
_OWN = (("lease_epoch", S.lease_epoch + sa.literal_column("1")), ("claimed_version", S.version))


def _claim_among(keys: list[Key], request: r.ClaimSessions) -> Recipe:
    """Lock these, and take those that may be taken: their rows, in the order of the keys given."""
    rows = yield from lock_these(keys, tuple(S.keys()), skip=True)
    taken = [(row, _values(row, request)) for row in rows if _may_be_claimed(row, request)]
    for values, some in alike(taken):
        yield from set_these(some, values, _OWN)
    found = {
        (row["tenant"], row["session_id"]): {
            **row, **values, "lease_epoch": row["lease_epoch"] + 1, "claimed_version": row["version"],
        }
        for row, values in taken
    }  # fmt: skip
    return [found[key] for key in keys if key in found]


def _values(row: Row, request: r.ClaimSessions) -> Row:
    rescued = row["available_at"] is None
    got_on = row["claimed_version"] is None or row["version"] > row["claimed_version"]
    return {
        "lease_holder": request.holder,
        "lease_expires_at": row["now"] + timedelta(seconds=request.ttl),
        "available_at": None,
        "attempts": 1 if got_on else row["attempts"] + 1,
        "rescues": (0 if got_on else row["rescues"]) + rescued,
        **active_now(row),
    }
