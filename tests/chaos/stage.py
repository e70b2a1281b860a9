"""The databases of a chaos run: a server of its own, and weather in front of it for each player."""

import contextlib
from pathlib import Path
from typing import Literal, Self, get_args

from lifecycle import migrate
from tests.chaos.weather import Weather
from tests.servers import MariaDBServer, PostgresServer, find_mariadb, find_postgres

Kind = Literal["postgresql", "mariadb", "sqlite"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# What a server's own crash can lose is what counts here, not what the machine's would: fsync does nothing for the first.
_POSTGRES = {"fsync": "off", "full_page_writes": "off"}
_MARIADB = {"innodb_flush_log_at_trx_commit": "2", "innodb_flush_method": "nosync"}
_NAME = "chaos"


class Stage:
    """A database with the schema in place; players reach it by `urls`, one each, and the harness by `url`."""

    def __init__(self, kind: Kind, directory: Path, players: int) -> None:
        self.kind = kind
        self.server: PostgresServer | MariaDBServer | None = None
        self.weathers: list[Weather] = []
        self._directory = directory
        self._players = players
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Start the server. Raises `ServerUnavailable` where the machine has none."""
        try:
            self._set_up()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything."""
        self._open.close()

    def _set_up(self) -> None:
        if self.kind == "sqlite":
            self.url = f"sqlite:///{self._directory / 'chaos.db'}"
            self.urls = [self.url] * self._players
        elif self.kind == "postgresql":
            postgres = self.server = self._open.enter_context(PostgresServer(find_postgres(18), settings=_POSTGRES))
            self.url = postgres.create_database(_NAME)
            self._weather(postgres.directory / ".s.PGSQL.5432")
            self.urls = [f"postgresql://postgres@/{_NAME}?host={weather.socket.parent}" for weather in self.weathers]
        else:
            mariadb = self.server = self._open.enter_context(MariaDBServer(find_mariadb(), settings=_MARIADB))
            self.url = mariadb.create_database(_NAME)
            self._weather(mariadb.socket)
            self.urls = [f"mysql://root@localhost/{_NAME}?unix_socket={weather.socket}" for weather in self.weathers]
        migrate.upgrade(self.url)

    def _weather(self, socket: Path) -> None:
        self.weathers = [self._open.enter_context(Weather(socket)) for _ in range(self._players)]
