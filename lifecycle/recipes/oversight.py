"""What an operator looks at, on any database: each statement stops at its limit along an index."""

from datetime import timedelta
from functools import cache
from typing import Any

import sqlalchemy as sa

from lifecycle import states
from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.recipes.keyed import FIELDS
from lifecycle.recipes.portable.base import NOW, Recipe, bound, is_in, of_key, p
from lifecycle.recipes.statement import Statement

_OFTEN: Any = sa.literal_column("2")
# So many of the newest lines of the audit log are looked through for those of one tenant.
_LOOKED_AT: Any = sa.literal_column("5000")
_S = t.sessions.c


def _conditions(before: Any) -> dict[str, tuple[Any, ...]]:
    """For each reason the conditions, and last the order. The number is spelt out, as the partial index needs it."""
    live = is_in(_S.state, states.LIVE)
    return {
        "held but silent": (live, _S.lease_holder.is_not(None), _S.lease_expires_at <= before, _S.lease_expires_at),
        "due but unclaimed": (is_in(_S.state, ("active",)), _S.available_at <= before, _S.available_at),
        "rescued often": (live, _S.rescues >= _OFTEN, _S.rescues.desc()),
    }


@cache
def _stuck(why: str, tenant: bool) -> Statement:
    *conditions, order = _conditions(p("before", t.sessions.c.available_at.type))[why]
    chosen = sa.select(*FIELDS).where(_S.deleted_at.is_(None), *conditions)
    if tenant:
        chosen = chosen.where(_S.tenant == p("tenant"))
    return Statement(chosen.order_by(order, _S.tenant, _S.session_id).limit(p("limit", sa.Integer())))


def list_stuck(request: r.ListStuck) -> Recipe:
    """Read the stuck sessions of one reason, by the database's clock."""
    (clock,) = yield NOW, {}
    before = clock["now"] - timedelta(seconds=request.silent_for)
    values = {"tenant": request.tenant, "limit": request.limit} | (
        {} if request.why == "rescued often" else {"before": before}
    )
    return (yield _stuck(request.why, request.tenant is not None), bound(values))


_T = t.transitions.c
_OF_SESSION = Statement(
    sa.select(*_T).where(of_key(t.transitions)).order_by(_T.id.desc()).limit(p("limit", sa.Integer()))
)
_OF_ALL = Statement(sa.select(*_T).order_by(_T.id.desc()).limit(p("limit", sa.Integer())))


def _of_tenant() -> Statement:
    newest = sa.select(*_T).order_by(_T.id.desc()).limit(_LOOKED_AT).subquery("newest")
    chosen = sa.select(*newest.c).where(newest.c.tenant == p("tenant"))
    return Statement(chosen.order_by(newest.c.id.desc()).limit(p("limit", sa.Integer())))


_OF_TENANT = _of_tenant()


def recent_transitions(request: r.RecentTransitions) -> Recipe:
    """Read the newest lines of the audit log."""
    values = bound({"limit": request.limit})
    if request.session_id is not None:
        values |= bound({"tenant": request.tenant, "session_id": request.session_id})
        return (yield _OF_SESSION, values)
    if request.tenant is not None:
        return (yield _OF_TENANT, values | bound({"tenant": request.tenant}))
    return (yield _OF_ALL, values)
