"""A Core expression, compiled once for each dialect: what a driver sends, and how it reads what comes back.

Executing a Core expression through SQLAlchemy costs some 40 µs each time; the text it compiles to, and the
processors of its types, cost one dictionary.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import ClauseList
from sqlalchemy.sql.operators import in_op

from lifecycle.models.types import Timestamp, from_microseconds, to_microseconds

Processor = Callable[[Any], Any]

DIALECTS: dict[str, sa.Dialect] = {
    "postgresql": PGDialect_psycopg(),  # type: ignore[no-untyped-call]
    "sqlite": SQLiteDialect_pysqlite(paramstyle="named"),
    "mysql": MySQLDialect_pymysql(paramstyle="pyformat"),
}
for _dialect in DIALECTS.values():
    # What a connection would have told; the oldest servers that are served all know RETURNING for INSERT.
    _dialect.insert_returning = True
_mysql = DIALECTS["mysql"]
_mysql.is_mariadb = True  # type: ignore[attr-defined]
_mysql.delete_returning = True


def row_maker(names: Sequence[str], readers: Mapping[str, Processor]) -> Callable[[Sequence[Any]], dict[str, Any]]:
    """A function from a row to a mapping, its columns and their readers written out: half the cost of a loop over them."""
    parts = [f"{name!r}: {f'read_{i}(row[{i}])' if name in readers else f'row[{i}]'}" for i, name in enumerate(names)]
    known = {f"read_{i}": readers[name] for i, name in enumerate(names) if name in readers}
    made: Callable[[Sequence[Any]], dict[str, Any]] = eval(f"lambda row: {{{', '.join(parts)}}}", known)  # noqa: S307 - our own names
    return made


def spelt_out(expression: Any) -> Any:
    """The expression with each `in_([...])` as a list of parameters: SQLAlchemy would write it at execution only."""

    def replace(element: Any, **_: Any) -> Any:
        if not (isinstance(element, sa.BindParameter) and element.expanding):
            return None
        values = [sa.literal(value, element.type) for value in element.effective_value or ()]
        if not values:
            return sa.select(sa.null()).where(sa.false()).scalar_subquery()
        return ClauseList(*values).self_group(against=in_op)

    if not any(getattr(element, "expanding", False) for element in visitors.iterate(expression)):
        return expression
    return visitors.replacement_traverse(expression, {}, replace)


class Compiled:
    """One statement for one dialect."""

    __slots__ = ("_binders", "_constants", "_make_row", "returns_rows", "sql")

    def __init__(self, expression: sa.Executable, dialect: sa.Dialect) -> None:
        compiled: Any = spelt_out(expression).compile(dialect=dialect)
        self.sql = str(compiled)
        bound: Iterable[tuple[str, Any]] = compiled.binds.items()
        self._binders: list[tuple[str, Processor]] = []
        self._constants: dict[str, Any] = {}
        for name, parameter in bound:
            processor = parameter.type.dialect_impl(dialect).bind_processor(dialect)
            if dialect.name == "sqlite" and isinstance(parameter.type, Timestamp):
                processor = to_microseconds
            if parameter.required:
                if processor is not None:
                    self._binders.append((name, processor))
            else:
                value = parameter.effective_value
                self._constants[name] = value if processor is None else processor(value)
        columns: list[Any] = list(getattr(expression, "exported_columns", ()))
        self.returns_rows = bool(columns)
        readers: dict[str, Processor] = {}
        for column in columns:
            # A connection of ours to PostgreSQL gives times in UTC as they should be: reading them again costs 1 µs each.
            if dialect.name == "postgresql" and isinstance(column.type, Timestamp):
                continue
            reader = column.type.dialect_impl(dialect).result_processor(dialect, None)
            if dialect.name == "sqlite" and isinstance(column.type, Timestamp):
                reader = from_microseconds
            if reader is not None:
                readers[column.name] = reader
        self._make_row = row_maker([column.name for column in columns], readers)

    def bind(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The parameters as the driver takes them."""
        if not self._binders and not self._constants:
            return values
        sent = {**self._constants, **values}
        for name, processor in self._binders:
            sent[name] = processor(sent[name])
        return sent

    def read(self, rows: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
        """The driver's rows as mappings of column names to Python values."""
        return list(map(self._make_row, rows))


class Statement:
    """A Core expression with a compiled form for each dialect, made when it is first needed."""

    __slots__ = ("_compiled", "expression")

    def __init__(self, expression: sa.Executable) -> None:
        self.expression = expression
        self._compiled: dict[str, Compiled] = {}

    def on(self, dialect: str) -> Compiled:
        """The form for a dialect."""
        compiled = self._compiled.get(dialect)
        if compiled is None:
            compiled = self._compiled[dialect] = Compiled(self.expression, DIALECTS[dialect])
        return compiled


NOT_ENOUGH: Final = object()
"""What `Single.read` gives for the rows of a lighter statement that left something out."""


@dataclass(frozen=True, slots=True)
class Single:
    """A recipe of one statement: it needs no transaction around it."""

    statement: Callable[[Any], Statement]
    bind: Callable[[Any], Mapping[str, Any]]
    read: Callable[[Any, list[dict[str, Any]]], Any]
    # A lighter statement where it seems to be enough; `read` says `NOT_ENOUGH` where it was not.
    lighter: Callable[[Any], Statement | None] | None = None

    def tries(self, request: Any) -> list[Statement]:
        """What to send until it is enough."""
        light = None if self.lighter is None else self.lighter(request)
        return [self.statement(request)] if light is None else [light, self.statement(request)]


@dataclass(frozen=True, slots=True)
class Call:
    """A function to call in the middle of a transaction, for what it returns; it may wait for the disk."""

    function: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Many:
    """One statement executed for each set of values, its rows left unread."""

    statement: Statement
    values: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Several:
    """Statements with their values, none of which needs another's rows, all sent at once: the rows of each.

    For recipes of PostgreSQL's, and for statements that return rows.
    """

    steps: Sequence[tuple[Statement, Mapping[str, Any]]]
