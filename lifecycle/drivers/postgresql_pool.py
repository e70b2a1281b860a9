"""Connections to PostgreSQL: how they are made, checked, and shared by the managers of one process."""

import select
import threading
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from lifecycle.drivers.postgresql_prepared import AsyncPreparedConnection, PreparedConnection
from lifecycle.drivers.stepping import IDLE
from lifecycle.errors import ConfigError
from lifecycle.recipes.citus_catalog import IS_CITUS, LOOK, ONE_SERVER, Layout
from lifecycle.settings import DatabaseSettings

_shared: dict[tuple[Any, ...], tuple["Pool", int]] = {}
_guard = threading.Lock()


# While a server is away psycopg_pool would wait longer and longer between its attempts, for minutes in the end, with
# every call failing meanwhile though the server be back. Ours gives a connection up at once, and whoever wants one has
# it tried again, every so often.
_GIVES_UP_AFTER = 0.3
_TRIES_EVERY = 0.5


class Pool(ConnectionPool[PreparedConnection]):
    """Knows whether its last attempt to connect failed, and how the tables were laid out when one did not."""

    away = False
    layout: Layout | None = None


class AsyncPool(AsyncConnectionPool[AsyncPreparedConnection]):
    """Knows whether its last attempt to connect failed, and how the tables were laid out when one did not."""

    away = False
    layout: Layout | None = None


def patience(pool: Pool | AsyncPool, left: float, *, tried: bool) -> float:
    """How long to wait for a connection before asking anew, in seconds.

    Asking anew has the server tried again, and gives up one's place in the queue: once, unless the server is away.
    """
    return min(left, _TRIES_EVERY) if pool.away or not tried else left


def _is_away(pool: Any) -> None:
    pool.away = True


def conninfo(settings: DatabaseSettings) -> str:
    """The URL as libpq takes it."""
    scheme, rest = settings.url.split("://", 1)
    return f"{scheme.split('+')[0]}://{rest}"


def arguments(settings: DatabaseSettings) -> dict[str, Any]:
    """How each connection is opened."""
    timeout = int(settings.statement_timeout * 1000)
    shared = {
        "autocommit": True,
        "application_name": "lifecycle",
        "client_encoding": "utf8",
        "connect_timeout": max(2, int(settings.connect_timeout)),
    }
    if settings.pooler:
        # Nothing may be left on a connection that is another's a moment later, prepared statements least of all; and
        # pgbouncer refuses options that it does not know.
        return {**shared, "prepare_threshold": None}
    return {
        **shared,
        "options": (
            f"-c timezone=UTC -c statement_timeout={timeout} -c idle_in_transaction_session_timeout={IDLE * 1000}"
        ),
        # Every hot statement is prepared at its first use, and none of them is dropped for a rare one.
        "prepare_threshold": 0,
    }


def limits(settings: DatabaseSettings) -> bytes:
    """The limits of a transaction behind a pooler, as one statement."""
    timeout = int(settings.statement_timeout * 1000)
    return (
        f"SELECT set_config('statement_timeout', '{timeout}', true),"
        f" set_config('idle_in_transaction_session_timeout', '{IDLE * 1000}', true)"
    ).encode()


def at_one_moment(plain: str) -> str:
    """What begins a transaction of several reads of the same moment; `plain` is what would otherwise."""
    return plain.replace("BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", 1)


def begin(settings: DatabaseSettings) -> str:
    """What begins a transaction of several statements. Behind a pooler its limits are the transaction's own."""
    if not settings.pooler:
        return "BEGIN"
    return f"BEGIN; {limits(settings).decode()}"


_LOOK = (
    "SELECT current_setting('synchronous_commit'), current_user,"
    f" coalesce(row_security_active(to_regclass('sessions')), true), {IS_CITUS}"
)


def _configure(settings: DatabaseSettings, row: Any) -> None:
    if settings.row_security and not row[2]:
        raise ConfigError(
            "database.row_security",
            f"it does not hold for the role {row[1]!r}: connect as one that `lifecycle db row-security on --role NAME`"
            " was run for, or set this key to false",
        )
    if row[0] == "off" and not settings.allow_unsafe_durability:
        raise ConfigError(
            "database.allow_unsafe_durability",
            "the server runs with synchronous_commit=off, under which an acknowledged save can be lost;"
            " turn it on, or set this key to true to accept that",
        )


def borrow(settings: DatabaseSettings) -> Pool:
    """The process's pool for these settings, opened at its first use; give it back with `release`."""
    key = _key(settings)
    with _guard:
        pool, users = _shared.get(key, (None, 0))
        if pool is None:

            def configure(connection: PreparedConnection) -> None:
                connection.prepared_max = 500
                if settings.pooler:
                    connection.by_name, connection.limits = False, limits(settings)
                    # One of the few settings that pgbouncer keeps for each client.
                    connection.execute("SET TIMEZONE TO 'UTC'")
                row: Any = connection.execute(_LOOK).fetchone()
                _configure(settings, row)
                made.layout = Layout.of(connection.execute(LOOK).fetchone()) if row[3] else ONE_SERVER
                made.away = False

            made = pool = Pool(
                conninfo(settings), connection_class=PreparedConnection, min_size=0, max_size=settings.pool_size, kwargs=arguments(settings),
                configure=configure, open=True, timeout=settings.connect_timeout, name="lifecycle",
                reconnect_timeout=_GIVES_UP_AFTER, reconnect_failed=_is_away,
            )  # fmt: skip
        _shared[key] = (pool, users + 1)
        return pool


def release(settings: DatabaseSettings) -> None:
    """Give the pool back; the last user closes it."""
    key = _key(settings)
    with _guard:
        pool, users = _shared.pop(key)
        if users > 1:
            _shared[key] = (pool, users - 1)
            return
    pool.close()


def async_pool(settings: DatabaseSettings) -> AsyncPool:
    """A pool for one event loop, not yet open."""

    async def configure(connection: AsyncPreparedConnection) -> None:
        connection.prepared_max = 500
        if settings.pooler:
            connection.by_name, connection.limits = False, limits(settings)
            await connection.execute("SET TIMEZONE TO 'UTC'")
        row: Any = await (await connection.execute(_LOOK)).fetchone()
        _configure(settings, row)
        made.layout = Layout.of(await (await connection.execute(LOOK)).fetchone()) if row[3] else ONE_SERVER
        made.away = False

    made = AsyncPool(
        conninfo(settings), connection_class=AsyncPreparedConnection, min_size=0, max_size=settings.pool_size,
        kwargs=arguments(settings), configure=configure,
        open=False, timeout=settings.connect_timeout, name="lifecycle",
        reconnect_timeout=_GIVES_UP_AFTER, reconnect_failed=_is_away,
    )  # fmt: skip
    return made


def hung_up(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Whether an idle connection has something to read: the server closed it, or said something out of turn.

    It costs a microsecond, and spares a write on a connection that died while idle its unknown outcome.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def _key(settings: DatabaseSettings) -> tuple[Any, ...]:
    import os

    return (os.getpid(), *settings.model_dump().items())
