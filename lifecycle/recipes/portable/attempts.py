"""Requests to the HTTP API that must not be carried out twice, on any database."""

from datetime import timedelta

import sqlalchemy as sa

from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import NOW, Recipe, Row, bound, insert, p, setting
from lifecycle.recipes.statement import Statement

_OF_KEY = sa.and_(
    t.idempotency_keys.c.tenant == p("tenant"),
    t.idempotency_keys.c.caller == p("caller"),
    t.idempotency_keys.c.idempotency_key == p("idempotency_key"),
)
_LOCK = Statement(sa.select(*t.idempotency_keys.c).where(_OF_KEY).with_for_update())
_DROP = Statement(sa.delete(t.idempotency_keys).where(_OF_KEY))


def claim_attempt(request: r.ClaimAttempt) -> Recipe:
    """Insert the attempt, or take over one that is too old."""
    own = _own(request)
    found = yield _LOCK, bound(own)
    (clock,) = yield NOW, {}  # once the row is locked: whoever had it may have kept us waiting
    now = clock["now"]
    fresh: Row = {
        "digest": request.digest, "status": None, "headers": None, "body": None, "created_at": now, "claimed_at": now,
    }  # fmt: skip
    if not found:
        yield insert(t.idempotency_keys, (*own, *fresh)), bound(own | fresh)
        return own | fresh | {"claimed": True, "lapsed": False, "now": now}
    row = found[0]
    silent = row["status"] is None and row["claimed_at"] <= now - timedelta(seconds=request.lapse)
    # One that has no answer may still be under way: it is not forgotten before nobody can be at it any more.
    if row["created_at"] <= now - timedelta(seconds=request.keep) and (row["status"] is not None or silent):
        yield setting(t.idempotency_keys, own, fresh)
        return own | fresh | {"claimed": True, "lapsed": False, "now": now}
    claimed = silent and request.repeatable and row["digest"] == request.digest
    if claimed:
        row["claimed_at"] = now
        yield setting(t.idempotency_keys, own, {"claimed_at": now})
    return row | {"claimed": claimed, "lapsed": silent, "now": now}


def answer_attempt(request: r.AnswerAttempt) -> Recipe:
    """Write what it was answered, unless it was taken over."""
    own = _own(request)
    found = yield _LOCK, bound(own)
    if not found or found[0]["status"] is not None or found[0]["claimed_at"] != request.claimed_at:
        return False
    if request.status is None:
        yield _DROP, bound(own)
    else:
        answered = {"status": request.status, "headers": request.headers, "body": request.body}
        yield setting(t.idempotency_keys, own, answered)
    return True


def _own(request: r.ClaimAttempt | r.AnswerAttempt) -> Row:
    return {"tenant": request.tenant, "caller": request.caller, "idempotency_key": request.key}
