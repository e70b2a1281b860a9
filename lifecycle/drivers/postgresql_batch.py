"""Several prepared statements in one transaction and one round trip: all that concurrent callers have in flight.

All is sent at once in libpq's pipeline mode: BEGIN, a short limit for waiting on locks, the statements, COMMIT. Either
everything was committed, or nothing was, and then each statement can be run by itself.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.waiting import Ready, Wait

from lifecycle.drivers.combining import NotCommitted
from lifecycle.drivers.postgresql_errors import forgotten

if TYPE_CHECKING:
    from lifecycle.drivers.postgresql_prepared import AsyncPreparedConnection, Prepared, PreparedConnection, Rows

# What waits longer for a lock goes by itself, so that its neighbours need not.
LOCK_TIMEOUT_MS: Final = 25
_BEGIN: Final = b"BEGIN"
_PATIENCE: Final = b"SET LOCAL lock_timeout = '%dms'"
_COMMIT: Final = b"COMMIT"
_DONE: Final = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


def steps(
    connection: "PreparedConnection | AsyncPreparedConnection",
    batch: "Sequence[tuple[Prepared, list[bytes | None]]]",
    patience: int = LOCK_TIMEOUT_MS,
    scope: "tuple[bytes, bytes] | None" = None,
) -> "PQGen[list[Rows]]":
    """Run the statements in one transaction: the rows of each. Raises `NotCommitted`, and psycopg's errors when it is lost.

    Each waits for locks for `patience` milliseconds at most. `scope` is a statement ahead of them with its value.
    """
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
        send(_BEGIN, _BEGIN, [])
        limit = _PATIENCE % patience
        send(limit, limit, [])
        if connection.limits:
            send(connection.limits, connection.limits, [])
        if scope is not None:
            send(scope[0], scope[0], [scope[1]])
        for statement, values in batch:
            send(statement, statement.text, values)
        send(_COMMIT, _COMMIT, [])
        pgconn.pipeline_sync()
        results = yield from communicate(pgconn)
    finally:
        if pgconn.status == ConnStatus.OK:
            pgconn.exit_pipeline_mode()
    failed = next((one for one in results if one.status not in _DONE), None)
    if failed is not None or results[-1].command_status != b"COMMIT":
        error = None if failed is None else error_from_result(failed)
        if error is not None and forgotten(error):
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
    rows: Rows = connection.rows(statement, fresh.get(statement, b""), result)
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
