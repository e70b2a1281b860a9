"""The tenant that travels with each statement where row-level security is on (docs/security.md).

A manager says whose sessions it is for, and its statements are sent behind a `set_config` in one pipeline: one round
trip, and one transaction, which PostgreSQL begins with the first message and ends at the sync that closes the pipeline
(its manual, section 55.2.3). What was set ends with it, whatever becomes of the statement, so that nothing is left on a
pooled connection. The setting is `=` and the tenant, as it is empty, not missing, on a connection that had one before;
`*` is everybody's, which only a role with a policy for that sees anything with.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql
from psycopg.abc import PQGen
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, Format

from lifecycle.drivers.postgresql_batch import communicate
from lifecycle.drivers.postgresql_errors import forgotten
from lifecycle.operations.context import AllTenants
from lifecycle.operations.typing import Steps, T

if TYPE_CHECKING:
    from lifecycle.drivers.postgresql_prepared import Prepared, Rows

SETTING: Final = "lifecycle.tenant"

_SET: Final = b"SELECT set_config('lifecycle.tenant', $1, true)"
_scope: ContextVar[str] = ContextVar("lifecycle_scope", default="")


def setting_for(scope: str | AllTenants) -> str:
    """The setting's value for a manager of these sessions."""
    return f"={scope}" if isinstance(scope, str) else "*"


class ScopedDriver:
    """A driver for one manager: it knows whose sessions its statements are for. All else is the shared driver's."""

    def __init__(self, inner: Any, scope: str | AllTenants) -> None:
        self.__dict__.update(inner=inner, setting=setting_for(scope))

    def run(self, operation: Steps[T]) -> T:
        """Run one operation to its end."""
        token = _scope.set(self.setting)
        try:
            result: T = self.inner.run(operation)
            return result
        finally:
            _scope.reset(token)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.inner, name, value)


class AsyncScopedDriver(ScopedDriver):
    """The same for an async driver."""

    async def run(self, operation: Steps[T]) -> T:  # type: ignore[override]
        """Run one operation to its end."""
        token = _scope.set(self.setting)
        try:
            result: T = await self.inner.run(operation)
            return result
        finally:
            _scope.reset(token)


def begin(plain: str) -> sql.Composed:
    """What begins a transaction of several statements for the manager that runs it; `plain` is what would otherwise."""
    tenant = sql.Literal(_scope.get())
    return sql.SQL(plain) + sql.SQL("; SELECT set_config('lifecycle.tenant', {}, true)").format(tenant)


def ahead() -> tuple[bytes, bytes]:
    """What goes ahead of statements in a transaction for the manager that runs them: a statement with its value."""
    return _SET, _scope.get().encode()


def steps(connection: Any, statement: "Prepared", values: "Sequence[bytes | None]") -> "PQGen[Rows]":
    """Run a statement for the manager that runs it: its rows. Raises psycopg's errors; nothing was committed then."""
    for last in (False, True):
        results = yield from _send(connection, statement, values)
        failed = next((one for one in results if one.status == ExecStatus.FATAL_ERROR), None)
        if failed is None:
            name, _ = connection.known().get(statement, (b"", None))
            rows: Rows = connection.rows(statement, name, results[-1])
            return rows
        error = error_from_result(failed)
        if last or not forgotten(error):
            raise error
        # Nothing ran: somebody dropped the statements, or a migration changed what this one returns.
        connection.known().clear()
    raise AssertionError("unreachable")


def _send(connection: Any, statement: "Prepared", values: "Sequence[bytes | None]") -> "PQGen[list[Any]]":
    pgconn, ready = connection.pgconn, connection.known()
    prepared: list[tuple[Any, bytes] | None] = []

    def send(key: Any, text: bytes, sent: "Sequence[bytes | None]") -> None:
        if not connection.by_name:
            pgconn.send_query_params(text, sent, result_format=Format.BINARY)
            prepared.append(None)
            return
        name = ready[key][0] if key in ready else None
        if name is None:
            name = connection.next_name()
            pgconn.send_prepare(name, text)
            prepared.append((key, name))
        pgconn.send_query_prepared(name, sent, result_format=Format.BINARY)
        prepared.append(None)

    pgconn.enter_pipeline_mode()
    try:
        send(_SET, _SET, [_scope.get().encode()])
        send(statement, statement.text, values)
        pgconn.pipeline_sync()
        results: list[Any] = yield from communicate(pgconn)
    finally:
        if pgconn.status == ConnStatus.OK:
            pgconn.exit_pipeline_mode()
    # What is prepared stays so, though the statement behind it failed.
    for made, result in zip(prepared, results, strict=False):
        if made is not None and result.status == ExecStatus.COMMAND_OK:
            ready[made[0]] = (made[1], None)
    return results
