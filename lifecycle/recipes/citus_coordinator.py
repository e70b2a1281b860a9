"""What the coordinator of Citus has to say itself: the time, and up to where the audit log is settled.

In an UPDATE, Citus reckons functions on the coordinator; those of a SELECT are handed to the nodes that hold the rows,
with their clocks and their transactions. So a SELECT is sent without them: `now` beside the rows is read behind them,
once they are locked, and whatever a condition asks for is read before and sent as a parameter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.sql import visitors

from lifecycle.models import tables as t
from lifecycle.models.types import Timestamp, now
from lifecycle.recipes import lists, watching
from lifecycle.recipes.citus_catalog import DISTRIBUTED
from lifecycle.recipes.portable.base import NOW, Recipe, Row, p
from lifecycle.recipes.statement import Single, Statement

_CLOCK: Final = "coordinator_now"
_HORIZON: Final = "coordinator_horizon"
# Transactions are told apart by the lower half of their number where locks are listed.
_HALF: Final = 2**32

# The sizes of distributed tables are asked of the nodes.
SIZES: Final = Statement(
    sa.text(
        "SELECT c.relname AS name, CASE WHEN d.logicalrelid IS NULL THEN pg_total_relation_size(c.oid)"
        " ELSE citus_total_relation_size(c.oid, fail_on_error => false) END AS bytes"
        " FROM pg_class AS c LEFT JOIN pg_dist_partition AS d ON d.logicalrelid = c.oid"
        " WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')"
        f" AND c.relname IN ({', '.join(repr(table.name) for table in t.metadata.sorted_tables)})"
    ).columns(sa.column("name", sa.Text()), sa.column("bytes", sa.BigInteger()))
)

# A transaction's lock on its own number is let go last of all, behind what Citus does once it is committed here: the
# second phase on the nodes. So whoever has one may still have rows that nobody sees.
LOOK: Final = Statement(
    sa.text(
        "SELECT pg_current_snapshot()::text AS snapshot,"
        " (SELECT string_agg(transactionid::text, ',') FROM pg_locks"
        " WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted) AS locked"
    ).columns(sa.column("snapshot", sa.Text()), sa.column("locked", sa.Text()))
)


def horizon(row: Row) -> int:
    """The number below which every transaction is over, on all nodes: from a row of `LOOK`."""
    lowest = int(row["snapshot"].partition(":")[0])
    behind = ((lowest - int(number)) % _HALF for number in (row["locked"] or "").split(",") if number)
    return lowest - max((age for age in behind if age < _HALF // 2), default=0)


@dataclass(frozen=True, slots=True)
class Sent:
    """A statement as it is sent, what is to be read before it, and whether the time is to be read behind it."""

    statement: Statement
    clock: bool = False
    horizon: bool = False
    now: bool = False


@lru_cache(4096)  # a caller's own conditions make a statement each
def sent(statement: Statement) -> Sent:
    """How a statement is sent on Citus."""
    if statement is lists.SIZES:
        return Sent(SIZES)
    expression: Any = statement.expression
    if not isinstance(expression, sa.Select) or not _is_distributed(expression):
        return Sent(statement)
    kept = [column for column in expression.selected_columns if not _is_now(column)]
    behind = len(kept) < len(expression.selected_columns)
    if behind:
        expression = expression.with_only_columns(*kept, maintain_column_froms=True)
    asked = set()

    def replace(element: Any, **_: Any) -> Any:
        if isinstance(element, now):
            asked.add(_CLOCK)
            return p(_CLOCK, Timestamp())
        if isinstance(element, watching.horizon):
            asked.add(_HORIZON)
            return p(_HORIZON, sa.BigInteger())
        return None

    if any(isinstance(element, now | watching.horizon) for element in visitors.iterate(expression)):
        expression = visitors.replacement_traverse(expression, {}, replace)
    if not (behind or asked):
        return Sent(statement)
    return Sent(Statement(expression), _CLOCK in asked, _HORIZON in asked, behind)


def on_coordinator(recipe: Callable[[Any], Recipe]) -> Callable[[Any], Recipe]:
    """The recipe with each of its statements sent as Citus needs it."""

    def run(request: Any) -> Recipe:
        steps = recipe(request)
        answer: Any = None
        try:
            while True:
                step = steps.send(answer)
                answer = (yield from _met(*step)) if isinstance(step, tuple) else (yield step)
        except StopIteration as done:
            return done.value
        finally:
            steps.close()

    return run


def single(one: Single) -> Single:
    """A recipe of one statement as Citus needs it: one that asks the coordinator for nothing."""

    def statement(request: Any) -> Statement:
        wanted = one.statement(request)
        if sent(wanted).statement is not wanted:
            raise TypeError(f"on Citus this takes a recipe of several statements: {wanted.expression}")
        return wanted

    return Single(statement, one.bind, one.read)


def _met(statement: Statement, values: Row) -> Recipe:
    how = sent(statement)
    if how.clock:
        (clock,) = yield NOW, {}
        values = {**values, f"p_{_CLOCK}": clock["now"]}
    if how.horizon:
        (look,) = yield LOOK, {}
        values = {**values, f"p_{_HORIZON}": horizon(look)}
    rows = yield how.statement, values
    if how.now and rows:
        (clock,) = yield NOW, {}
        rows = [{**row, "now": clock["now"]} for row in rows]
    return rows


def _is_now(column: Any) -> bool:
    return isinstance(column, sa.Label) and isinstance(column.element, now)


def _is_distributed(expression: Any) -> bool:
    return any(isinstance(element, sa.Table) and element in DISTRIBUTED for element in visitors.iterate(expression))
