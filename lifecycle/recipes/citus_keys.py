"""Rows by their keys, many at once: a list that a statement is joined to on every node."""

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from lifecycle.models import tables as t
from lifecycle.models.types import Timestamp, transaction_id
from lifecycle.recipes.portable.base import Row, bound, p
from lifecycle.recipes.statement import Statement

KEY = ("tenant", "session_id")


def listed(columns: Mapping[str, Any]) -> Any:
    """A list of rows that is sent with the statement: a column of each name, of its type."""
    given = sa.func.unnest(*(p(f"{name}_list", ARRAY(kind)) for name, kind in columns.items()))
    return given.table_valued(*(sa.column(name, kind) for name, kind in columns.items())).render_derived(name="given")


def of(table: sa.Table, names: Iterable[str] = KEY) -> Any:
    """A list of values of a table's columns."""
    return listed({name: _plain(table.c[name].type) for name in names})


def same(table: sa.Table, given: Any, names: Iterable[str] = KEY) -> Any:
    """The condition that a row is one of the list."""
    return sa.and_(*(table.c[name] == given.c[name] for name in names))


def values_of(rows: Iterable[Mapping[str, Any]], names: Iterable[str] = KEY) -> Row:
    """The list's parameters."""
    rows = list(rows)
    return bound({f"{name}_list": [row[name] for row in rows] for name in names})


def delete(table: sa.Table, names: tuple[str, ...] = KEY) -> Statement:
    """Remove the rows of a list of keys."""
    given = of(table, names)
    return Statement(sa.delete(table).where(same(table, given, names)))


_LOGGED = ("tenant", "session_id", "seq", "from_state", "version")


def log(trigger: str, target: str | None) -> Statement:
    """Write a line of the audit log for each row of a list.

    A select from no table of the cluster is run on the coordinator, which copies what it gives to the nodes.
    """
    given = of(t.transitions, _LOGGED)
    texts = {"trigger_name": trigger, "to_state": target}
    spelt = {name: sa.null() if text is None else sa.literal_column(f"'{text}'") for name, text in texts.items()}
    chosen = {
        **{name: given.c[name] for name in _LOGGED},
        **spelt,
        "reason": p("reason", sa.Text()),
        "actor": p("actor", sa.Text()),
        "created_at": p("now", Timestamp()),
        "txid": transaction_id(),
    }
    return Statement(sa.insert(t.transitions).from_select(list(chosen), sa.select(*chosen.values())))


def lines(rows: Iterable[Mapping[str, Any]]) -> Row:
    """The list's parameters for `log`."""
    return values_of(rows, _LOGGED)


def _plain(kind: Any) -> Any:
    return sa.Text() if isinstance(kind, sa.Text) else kind
