"""Keys to the HTTP API, and the secret that signs its cookies, on any database."""

from datetime import timedelta
from functools import cache
from typing import Any

import sqlalchemy as sa

from lifecycle import deadlines
from lifecycle.models import tables as t
from lifecycle.models.types import now
from lifecycle.operations import requests as r
from lifecycle.recipes.portable.base import NOW, Recipe, bound, insert, p, setting
from lifecycle.recipes.statement import Single, Statement

K = t.api_keys.c
_KEY = Statement(sa.select(*K, now().label("now")).where(K.key_id == p("key_id")))
_ANY = Statement(sa.select(sa.literal_column("1", sa.Integer()).label("there")).select_from(t.api_keys).limit(
    sa.literal_column("1")
))  # fmt: skip
_SECRET = Statement(sa.select(t.secrets.c.value).where(t.secrets.c.name == p("name")))


@cache
def _keys(tenant: bool) -> Statement:
    chosen = sa.select(*K)
    if tenant:
        chosen = chosen.where(K.tenant == p("tenant"))
    return Statement(chosen.order_by(K.created_at, K.key_id))


def create_key(request: r.CreateKey) -> Recipe:
    """Insert a key."""
    (clock,) = yield NOW, {}
    values = request.values | {
        "created_at": clock["now"],
        "expires_at": deadlines.later(clock["now"], request.expires_in),
        "revoked_at": None,
        "last_used_at": None,
    }
    yield insert(t.api_keys, tuple(values)), bound(values)
    return values


def list_keys(request: r.ListKeys) -> Recipe:
    """Read the keys of a tenant, or all."""
    return (yield _keys(request.tenant is not None), bound({"tenant": request.tenant}))


def stamp_key(request: r.StampKey) -> Recipe:
    """Write that a key was used, unless another process just did."""
    found = yield _KEY, bound({"key_id": request.key_id})
    if found and (
        found[0]["last_used_at"] is None
        or found[0]["now"] - found[0]["last_used_at"] >= timedelta(seconds=request.seconds)
    ):
        yield setting(t.api_keys, {"key_id": request.key_id}, {"last_used_at": found[0]["now"]})


def revoke_key(request: r.RevokeKey) -> Recipe:
    """Write that a key opens nothing any more, once."""
    found = yield _KEY, bound({"key_id": request.key_id})
    if not found or (request.tenant is not None and found[0]["tenant"] != request.tenant):
        return None
    (row,) = found
    if row["revoked_at"] is None:
        row["revoked_at"] = row["now"]
        yield setting(t.api_keys, {"key_id": request.key_id}, {"revoked_at": row["now"]})
    return row


def share_secret(request: r.ShareSecret) -> Recipe:
    """Read a secret, making it first where nobody has."""
    own = bound({"name": request.name})
    found = yield _SECRET, own
    if not found:
        (clock,) = yield NOW, {}
        values = {"name": request.name, "value": request.value, "created_at": clock["now"]}
        yield insert(t.secrets, tuple(values)), bound(values)
        return request.value
    return found[0]["value"]


def _there(_request: Any, rows: list[dict[str, Any]]) -> bool:
    return bool(rows)


def _first(_request: Any, rows: list[dict[str, Any]]) -> Any:
    return rows[0] if rows else None


# What every request to the API may ask for: one statement.
READS: dict[type[r.Request], Single] = {
    r.GetKey: Single(lambda _: _KEY, lambda request: bound({"key_id": request.key_id}), _first),
    r.AnyKey: Single(lambda _: _ANY, lambda _: {}, _there),
}
