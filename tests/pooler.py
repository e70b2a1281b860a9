"""A real pgbouncer for tests, in transaction mode: whoever has no transaction open has no connection of his own."""

import signal
from collections.abc import Mapping
from pathlib import Path

import psycopg

from tests.servers import PostgresServer, ServerUnavailable, StopMode, _Server, _version, _which

_PORT = 6432


def find_pgbouncer() -> Path:
    """The path of pgbouncer. Raises `ServerUnavailable` where it is not installed."""
    found = _which("pgbouncer")
    if found is None:
        message = "pgbouncer is not installed; looked for it on PATH and in /usr/sbin"
        raise ServerUnavailable(message)
    return Path(found)


class PgBouncer(_Server):
    """pgbouncer in front of a PostgreSQL server, with so few connections to it that clients must share them."""

    death_signal = "INT"
    stop_signals: Mapping[StopMode, signal.Signals] = {"fast": signal.SIGINT, "immediate": signal.SIGTERM}

    def __init__(self, binary: Path, behind: PostgresServer, *, connections: int = 2) -> None:
        super().__init__(binary, None, None)
        self._binary = binary
        self._behind = behind
        self._connections = connections

    @property
    def version(self) -> str:
        """The version of the binary."""
        return _version(self._binary)

    def url(self, database: str) -> str:
        """Return the URL of a database of the server behind."""
        user = psycopg.conninfo.conninfo_to_dict(self._behind.url(database))["user"]
        return f"postgresql://{user}@/{database}?host={self.directory}&port={_PORT}"

    def drop_database(self, name: str) -> None:
        """Drop the database on the server behind."""
        self._behind.drop_database(name)

    def _initialize(self) -> None:
        user = psycopg.conninfo.conninfo_to_dict(self._behind.url("postgres"))["user"]
        (self.directory / "pgbouncer.ini").write_text(
            f"""
[databases]
* = host={self._behind.directory} user={user}
[pgbouncer]
listen_addr =
listen_port = {_PORT}
unix_socket_dir = {self.directory}
auth_type = any
pool_mode = transaction
default_pool_size = {self._connections}
max_client_conn = 500
query_wait_timeout = 20
"""
        )

    def _command(self) -> list[str]:
        return [str(self._binary), str(self.directory / "pgbouncer.ini")]

    def _ping(self) -> None:
        psycopg.connect(self.url("postgres"), connect_timeout=2).close()
