"""What every recipe is made of: parameters, keys, locks, and the columns that any activity changes.

A recipe is a generator: it yields a statement with its values and is sent the rows (or, for a statement
that returns none, the number of rows it changed). The session's row is locked first; what may be decided in
Python is decided in Python, from the locked row and the database's clock.
"""

from collections.abc import Generator, Mapping
from functools import cache
from typing import Any, TypeVar

import sqlalchemy as sa

from lifecycle import deadlines
from lifecycle.models import tables as t
from lifecycle.models.types import now, transaction_id
from lifecycle.operations import requests as r
from lifecycle.recipes.statement import Statement

Recipe = Generator[Any, Any, Any]


T = TypeVar("T")
Row = dict[str, Any]


def p(name: str, kind: Any = None) -> Any:
    """A parameter, named apart from the columns."""
    return sa.bindparam(f"p_{name}", type_=kind, required=True)


def bound(values: Mapping[str, Any]) -> Row:
    """Values by parameter name."""
    return {f"p_{name}": value for name, value in values.items()}


def of_key(table: sa.Table) -> Any:
    """The condition that a row belongs to the session."""
    return sa.and_(table.c.tenant == p("tenant"), table.c.session_id == p("session_id"))


def key(request: Any) -> Row:
    """The parameters of `of_key`."""
    return {"p_tenant": request.tenant, "p_session_id": request.session_id}


def is_in(column: Any, names: tuple[str, ...]) -> Any:
    """A condition with the names spelt out, as partial indexes need it."""
    return column.in_([sa.literal_column(f"'{name}'") for name in names])


@cache
def insert(table: sa.Table, columns: tuple[str, ...]) -> Statement:
    """Insert one row with these columns."""
    values = {name: p(name, table.c[name].type) for name in columns}
    if table is t.transitions:
        values["txid"] = transaction_id()
    return Statement(sa.insert(table).values(values))


@cache
def update(table: sa.Table, columns: tuple[str, ...], by: tuple[str, ...] = ("tenant", "session_id")) -> Statement:
    """Set these columns of the row with this key."""
    matches = [table.c[name] == p(f"by_{name}", table.c[name].type) for name in by]
    return Statement(sa.update(table).where(*matches).values({name: p(name, table.c[name].type) for name in columns}))


def setting(table: sa.Table, row_key: Row, values: Row) -> tuple[Statement, Row]:
    """The statement and values to set columns of one row."""
    by = {f"p_by_{name}": value for name, value in row_key.items()}
    return update(table, tuple(values), tuple(row_key)), bound(values) | by


LOCK = Statement(sa.select(*t.sessions.c, now().label("now")).where(of_key(t.sessions)).with_for_update())


# What saves, messages and signs of life look at: reading the rest would cost them as much as writing.
SHORT = (
    "tenant", "session_id", "state", "title", "version", "next_seq", "message_count", "last_active_at",
    "idle_active", "idle_suspended", "max_age_at", "expires_at", "deleted_at", "lease_holder",
    "lease_epoch", "lease_expires_at", "next_entry", "entries_from", "entries_before", "checkpoint_version",
)  # fmt: skip
LOCK_SHORT = Statement(
    sa.select(*(t.sessions.c[name] for name in SHORT), now().label("now")).where(of_key(t.sessions)).with_for_update()
)


GET = Statement(sa.select(*t.sessions.c).where(of_key(t.sessions), t.sessions.c.deleted_at.is_(None)))


NOW = Statement(sa.select(now().label("now")))


# What a retry token was used for; it is looked up within saves, too.
TOKEN = Statement(
    sa.select(t.tokens.c.digest, t.tokens.c.version).where(of_key(t.tokens), t.tokens.c.token == p("token"))
)


def lock(request: Any, statement: Statement = LOCK) -> Recipe:
    """The session's row, locked, with `now`; None where it is missing or hidden."""
    found = yield statement, key(request)
    return found[0] if found and found[0]["deleted_at"] is None else None


def leased(row: Row) -> bool:
    """Whether somebody holds the session now."""
    return (
        row["lease_holder"] is not None and row["lease_expires_at"] is not None and row["lease_expires_at"] > row["now"]
    )


def barred(row: Row, fence: r.Fence | None) -> bool:
    """Whether a write may not touch the session: it has another holder than the write, or a later epoch."""
    return leased(row) if fence is None else (row["lease_holder"], row["lease_epoch"]) != fence


def audit_row(
    row: Row, seq: int, trigger: str, source: str | None, target: str | None, version: int, **more: Any
) -> Any:
    """The statement and values of a line of the audit log."""
    values = {
        "tenant": row["tenant"],
        "session_id": row["session_id"],
        "seq": seq,
        "trigger_name": trigger,
        "from_state": source,
        "to_state": target,
        "reason": more.get("reason"),
        "actor": more.get("actor"),
        "version": version,
        "created_at": row["now"],
    }
    return insert(t.transitions, tuple(values)), bound(values)


def active_now(row: Row) -> Row:
    """The columns that any activity changes. The deadline never moves down."""
    idle = row["idle_active"] if row["state"] == "active" else row["idle_suspended"]
    until = deadlines.expiry(row["now"], idle, row["max_age_at"])
    if until is not None and row["expires_at"] is not None and idle is not None:
        until = max(until, row["expires_at"])
    return {"last_active_at": max(row["now"], row["last_active_at"]), "expires_at": until}


def changed_now(row: Row) -> Row:
    """The columns that any change of content changes."""
    return {"updated_at": row["now"], "listed_at": deadlines.minute(row["now"])}


def own_key(row: Row) -> Row:
    """The key of a row."""
    return {"tenant": row["tenant"], "session_id": row["session_id"]}


def set_row(row: Row, values: Row) -> Recipe:
    """Write columns of a locked row and keep the mapping in step."""
    yield setting(t.sessions, own_key(row), values)
    row.update(values)


def padded(values: list[T]) -> list[T]:
    """Up to a power of two, the last again and again: each number of them would be another statement to compile."""
    return values + values[-1:] * ((1 << (len(values) - 1).bit_length()) - len(values)) if values else []
