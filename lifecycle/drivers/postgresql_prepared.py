"""A statement prepared once per connection and run with libpq's own calls.

psycopg's cursors do this and a good deal more on every call: they parse the placeholders' names, look the statement up
by its text, choose a format for each value and a loader for each column. For the hot statements all that is known
beforehand, and leaving it out takes a third off the time a call spends in Python. The connection, its waiting
(cancellation by Ctrl-C or by asyncio included), its errors and its value loaders remain psycopg's.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.generators import execute
from psycopg.pq import ConnStatus, ExecStatus, Format
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from lifecycle.drivers import postgresql_batch, postgresql_scope
from lifecycle.drivers.postgresql_errors import forgotten
from lifecycle.recipes.postgresql_arrays import array
from lifecycle.recipes.statement import Statement, row_maker

Rows = list[dict[str, Any]]

_DIALECT = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
_DIALECT.insert_returning = True
_ROWS = ExecStatus.TUPLES_OK
_FAILED = ExecStatus.FATAL_ERROR
_BINARY = Format.BINARY


# In text format, so that the type is the one that the statement's casts say, whatever the value.
_ENCODERS: dict[type, Callable[[Any], bytes | None]] = {
    str: str.encode,
    int: lambda value: b"%d" % value,
    bool: lambda value: b"t" if value else b"f",
    type(None): lambda _: None,
    float: lambda value: repr(value).encode(),
    list: lambda value: array(value).encode(),
    datetime: lambda value: str(value.isoformat()).encode(),
}


def _encode(value: Any) -> bytes | None:
    for kind in (str, bool, int, datetime):
        if isinstance(value, kind):
            return _ENCODERS[kind](kind.__str__(value) if kind is str else value)
    raise TypeError(f"no parameter of a statement: {value!r}")


class Prepared:
    """The text of a statement, the order of its parameters, and the names of its columns."""

    __slots__ = ("make_row", "places", "text")

    def __init__(self, statement: Statement) -> None:
        expression: Any = statement.expression
        compiled = expression.compile(dialect=_DIALECT)
        self.text = str(compiled).encode()
        self.places: tuple[str, ...] = tuple(compiled.positiontup or ())
        loose = [name for name in self.places if not compiled.binds[name].required]
        if loose:
            raise TypeError(f"write these values into the statement, as literals: {loose}\n{compiled}")
        names = [column.name for column in expression.exported_columns]
        self.make_row = row_maker(names, {})

    def values(self, given: Mapping[str, Any]) -> list[bytes | None]:
        """The parameters as they are sent."""
        return [_ENCODERS.get(type(value := given[name]), _encode)(value) for name in self.places]


_known: dict[Statement, Prepared] = {}


def prepared(statement: Statement) -> Prepared:
    """The prepared form of one of the hot statements, made at its first use."""
    found = _known.get(statement)
    if found is None:
        found = _known[statement] = Prepared(statement)
    return found


Batch = Sequence[tuple[Prepared, list[bytes | None]]]


def ready(sent: Sequence[tuple[Statement, Mapping[str, Any]]]) -> Batch:
    """Statements and their values as they are sent."""
    return [(prepared(statement), prepared(statement).values(given)) for statement, given in sent]


class _Preparing:
    """What both kinds of connection share."""

    pgconn: Any
    # Whether statements are kept by name on the server: not where a pooler gives each transaction another connection.
    by_name = True
    # A statement that sets a transaction's limits, where the connection has none.
    limits = b""
    _ready: dict[Any, tuple[bytes, Any]]
    _names = 0

    def known(self) -> dict[Any, tuple[bytes, Any]]:
        """The statements that are prepared here: their names, and what reads their rows."""
        if not hasattr(self, "_ready"):
            self._ready = {}
        return self._ready

    def next_name(self) -> bytes:
        """A name for one more statement."""
        self._names += 1
        return b"lifecycle_%d" % self._names

    def _steps(self, statement: Prepared, values: list[bytes | None]) -> PQGen[Rows]:
        if not self.by_name:
            return (yield from self._unnamed(statement, values))
        try:
            name, _ = self._ready[statement]
        except (AttributeError, KeyError):
            return (yield from self._first(statement, values))
        self.pgconn.send_query_prepared(name, values, result_format=_BINARY)
        (result,) = yield from execute(self.pgconn)
        if result.status != _ROWS:
            error = error_from_result(result)
            if forgotten(error):
                self._ready.clear()
                return (yield from self._first(statement, values))
            raise error
        return self.rows(statement, name, result)

    def rows(self, statement: Prepared, name: bytes, result: Any) -> Rows:
        """The rows of a statement's result. Its first one tells the columns; what reads them is kept beside the name."""
        _, transformer = self.known().get(statement, (name, None))
        if transformer is None:
            transformer = Transformer(self)  # type: ignore[arg-type]
            transformer.set_pgresult(result)
            self.known()[statement] = (name, transformer)
        else:
            transformer.set_pgresult(result, set_loaders=False)
        rows: Rows = transformer.load_rows(0, result.ntuples, statement.make_row)
        return rows

    def _unnamed(self, statement: Prepared, values: list[bytes | None]) -> PQGen[Rows]:
        """Send the text with the values: it is planned anew each time, and leaves nothing on the connection."""
        self.pgconn.send_query_params(statement.text, values, result_format=_BINARY)
        (result,) = yield from execute(self.pgconn)
        if result.status != _ROWS:
            raise error_from_result(result)
        return self.rows(statement, b"", result)

    def _first(self, statement: Prepared, values: list[bytes | None]) -> PQGen[Rows]:
        """Prepare the statement and run it, in one round trip."""
        name, pgconn = self.next_name(), self.pgconn
        pgconn.enter_pipeline_mode()
        try:
            pgconn.send_prepare(name, statement.text)
            pgconn.send_query_prepared(name, values, result_format=_BINARY)
            pgconn.pipeline_sync()
            results = yield from postgresql_batch.communicate(pgconn)
        finally:
            if pgconn.status == ConnStatus.OK:
                pgconn.exit_pipeline_mode()
        failed = next((one for one in results if one.status == _FAILED), None)
        if failed is not None:
            if failed is not results[0]:
                self.known()[statement] = (name, None)  # prepared it is
            raise error_from_result(failed)
        return self.rows(statement, name, results[-1])


class PreparedConnection(_Preparing, psycopg.Connection[Any]):
    """A connection that runs prepared statements."""

    def run(self, statement: Prepared, values: list[bytes | None]) -> Rows:
        """The rows of one statement, in its own transaction."""
        return self.wait(self._steps(statement, values))

    def run_scoped(self, statement: Prepared, values: list[bytes | None]) -> Rows:
        """The same under row-level security, for the manager that runs it."""
        return self.wait(postgresql_scope.steps(self, statement, values))

    def run_together(self, batch: Batch, **how: Any) -> list[Rows]:
        """The rows of each statement, all in one transaction. Raises `NotCommitted` when it was rolled back."""
        return self.wait(postgresql_batch.steps(self, batch, **how))


class AsyncPreparedConnection(_Preparing, psycopg.AsyncConnection[Any]):
    """An async connection that runs prepared statements."""

    async def run(self, statement: Prepared, values: list[bytes | None]) -> Rows:
        """The rows of one statement, in its own transaction."""
        return await self.wait(self._steps(statement, values))

    async def run_scoped(self, statement: Prepared, values: list[bytes | None]) -> Rows:
        """The same under row-level security, for the manager that runs it."""
        return await self.wait(postgresql_scope.steps(self, statement, values))

    async def run_together(self, batch: Batch, **how: Any) -> list[Rows]:
        """The rows of each statement, all in one transaction. Raises `NotCommitted` when it was rolled back."""
        return await self.wait(postgresql_batch.steps(self, batch, **how))
