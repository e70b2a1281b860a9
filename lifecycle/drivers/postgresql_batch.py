"""Several prepared statements in one transaction and one round trip: all that concurrent callers have in flight.

All is sent at once in libpq's pipeline mode: BEGIN, a short limit for waiting on locks, the statements, COMMIT. Either
everything was committed, or nothing was, and then each statement can be run by itself.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.errors import InvalidSqlStatementName, error_from_result
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.waiting import Ready, Wait

from lifecycle.drivers.combining import NotCommitted

if TYPE_CHECKING:
    from lifecycle.drivers.postgresql_prepared import AsyncPreparedConnection, Prepared, PreparedConnection, Rows

# What waits longer for a lock goes by itself, so that its neighbours need not.
LOCK_TIMEOUT_MS: Final = 25
_FRAME: Final = (b"BEGIN", b"SET LOCAL lock_timeout = '%dms'" % LOCK_TIMEOUT_MS, b"COMMIT")
_DONE: Final = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


def steps(
    connection: "PreparedConnection | AsyncPreparedConnection", batch: "Sequence[tuple[Prepared, list[bytes | None]]]"
) -> "PQGen[list[Rows]]":
    """Run the statements in one transaction: the rows of each. Raises `NotCommitted`, and psycopg's errors when it is lost."""
    pgconn = connection.pgconn
    ready, fresh = connection.known(), dict[Any, bytes]()
    expected: list[Any] = []

    def send(statement: Any, text: bytes, values: list[bytes | None]) -> None:
        if not connection.by_name:
            fresh[statement] = b""
            pgconn.send_query_params(text, values, result_format=Format.BINARY)
            expected.append(statement)
            return
        known = ready.get(statement)
        name = known[0] if known else fresh.get(statement)
        if name is None:
            name = fresh[statement] = connection.next_name()
            pgconn.send_prepare(name, text)
            expected.append(None)
        pgconn.send_query_prepared(name, values, result_format=Format.BINARY)
        expected.append(statement)

    pgconn.enter_pipeline_mode()
    try:
        send(_FRAME[0], _FRAME[0], [])
        send(_FRAME[1], _FRAME[1], [])
        if connection.limits:
            send(connection.limits, connection.limits, [])
        for statement, values in batch:
            send(statement, statement.text, values)
        send(_FRAME[2], _FRAME[2], [])
        pgconn.pipeline_sync()
        results = yield from communicate(pgconn)
    finally:
        if pgconn.status == ConnStatus.OK:
            pgconn.exit_pipeline_mode()
    failed = next((one for one in results if one.status not in _DONE), None)
    if failed is not None or results[-1].command_status != b"COMMIT":
        error = None if failed is None else error_from_result(failed)
        if isinstance(error, InvalidSqlStatementName) or "cached plan must not change" in str(error):
            ready.clear()
        raise NotCommitted from error
    return [rows for rows in map(partial(_read, connection, fresh), expected, results) if rows is not None]


def _read(connection: Any, fresh: dict[Any, bytes], statement: Any, result: Any) -> "Rows | None":
    """The rows of one of our statements; what was prepared for the first time is known from now on."""
    ready = connection.known()
    if statement is None:
        return None
    if isinstance(statement, bytes):
        if connection.by_name:
            ready.setdefault(statement, (fresh.get(statement, b""), None))
        return None
    known = ready.get(statement)
    if known is None:
        transformer = Transformer(connection)
        transformer.set_pgresult(result)
        ready[statement] = (fresh[statement], transformer)
    else:
        transformer = known[1]
        transformer.set_pgresult(result, set_loaders=False)
    rows: Rows = transformer.load_rows(0, result.ntuples, statement.make_row)
    return rows


def communicate(pgconn: Any) -> PQGen[list[Any]]:
    """Send what is buffered, reading meanwhile what the server has to say; the results up to the sync."""
    while pgconn.flush():
        if (yield Wait.RW) & Ready.R:
            pgconn.consume_input()
    results: list[Any] = []
    while True:
        while pgconn.is_busy():
            yield Wait.R
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            if pgconn.status != ConnStatus.OK:
                raise psycopg.OperationalError("the connection was lost")
        elif result.status == ExecStatus.PIPELINE_SYNC:
            return results
        elif pgconn.status != ConnStatus.OK:
            raise error_from_result(result)
        else:
            results.append(result)
