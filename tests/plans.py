"""What PostgreSQL does to meet a request: the rows its plans read and the indexes they use."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from lifecycle.drivers.postgresql_prepared import Prepared
from lifecycle.operations.requests import Request
from lifecycle.recipes import book
from lifecycle.recipes.lists import TimeLimit
from lifecycle.recipes.statement import Many, Statement

# After five runs with their own plans a prepared statement may get one plan for all parameters.
RUNS = 6


@dataclass
class Work:
    """Rows read from tables and indexes, rows given back, and what was read."""

    rows_read: float = 0
    rows_returned: int = 0
    indexes: set[str] = field(default_factory=set)
    sequential: set[str] = field(default_factory=set)
    # Indexes that were enough by themselves.
    only: set[str] = field(default_factory=set)
    # What the planner thought of the dearest statement.
    cost: float = 0.0


def work_of(connection: psycopg.Connection[Any], request: Request) -> tuple[Work, Any]:
    """Meet a request, looking at the plan of each of its statements as it is after many runs: the work, the answer.

    The transaction is left open.
    """
    single = book.SINGLES["postgresql"].get(type(request))
    work = Work()
    if single is not None:
        rows = _run(connection, single.statement(request), single.bind(request), work)
        return work, single.read(request, rows)
    recipe = book.RECIPES["postgresql"][type(request)](request)
    answer: Any = None
    try:
        while True:
            step = recipe.send(answer)
            if isinstance(step, TimeLimit):
                answer = None
                continue
            if isinstance(step, Many):
                for values in step.values:
                    _run(connection, step.statement, step.statement.on("postgresql").bind(values), work)
                answer = None
                continue
            statement, values = step
            answer = _run(connection, statement, values, work)
    except StopIteration as done:
        return work, done.value


def _run(connection: psycopg.Connection[Any], statement: Statement, values: Any, work: Work) -> Any:
    prepared = Prepared(statement) if hasattr(statement.expression, "exported_columns") else None
    compiled = statement.on("postgresql")
    text = (prepared or Prepared(statement)).text.decode()
    places = (prepared or Prepared(statement)).places
    given = [values[name] for name in places]
    call = sql.SQL("EXECUTE watched ({})").format(sql.SQL(", ").join(map(sql.Literal, given))) if given else sql.SQL(
        "EXECUTE watched"
    )  # fmt: skip
    connection.execute(f"PREPARE watched AS {text}".encode(), prepare=False)
    for run in range(RUNS + 1):
        connection.execute("SAVEPOINT watched")
        if run < RUNS:
            connection.execute(call, prepare=False)
        else:
            explain = sql.SQL("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) ") + call
            row = connection.execute(explain, prepare=False).fetchone()
            assert row is not None
            _add(row[0][0]["Plan"], work)
            work.cost = max(work.cost, row[0][0]["Plan"]["Total Cost"])
        connection.execute("ROLLBACK TO SAVEPOINT watched")
    cursor = connection.execute(call, prepare=False)
    rows = compiled.read(cursor.fetchall()) if compiled.returns_rows else cursor.rowcount
    connection.execute("DEALLOCATE watched")
    if isinstance(rows, Sequence):
        work.rows_returned += len(rows)
    return rows


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


def _add(plan: dict[str, Any], work: Work) -> None:
    for node in _nodes(plan):
        kind = node["Node Type"]
        if "Scan" not in kind or kind in {
            "CTE Scan",
            "Function Scan",
            "Subquery Scan",
            "Values Scan",
            "WorkTable Scan",
        }:
            continue
        seen = sum(
            node.get(name, 0) for name in ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
        )
        work.rows_read += seen * node["Actual Loops"]
        if "Index Name" in node:
            work.indexes.add(node["Index Name"])
            if kind == "Index Only Scan":
                work.only.add(node["Index Name"])
        if kind == "Seq Scan":
            work.sequential.add(node["Relation Name"])
