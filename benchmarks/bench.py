"""What a section of the benchmark gets to measure with, and what it gives back."""

import contextlib
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.table import Table

from benchmarks import population
from benchmarks.charts import Chart
from lifecycle import migrate
from tests.servers import MariaDBServer, PostgresServer, find_mariadb, find_postgres

# Called with a name and how often the function that comes back will be called: a progress bar.
Stage = Callable[[str, int], Callable[[], None]]
T = TypeVar("T")

# As a server of this size would be set up; commits are durable, as they are by default. Checkpoints would fall on
# whoever happens to be measured.
POSTGRESQL: Final = {"shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "30min"}
MARIADB: Final = {"innodb_buffer_pool_size": "512M", "innodb_log_file_size": "512M"}
# Past this, in seconds, everything is measured as rarely as it can be: a slow machine is not to take all day.
_LONGEST: Final = 750.0
SETTINGS: Final = "; ".join(
    f"{server}: {', '.join(f'{name}={value}' for name, value in settings.items())}"
    for server, settings in (("PostgreSQL", POSTGRESQL), ("MariaDB", MARIADB))
)
"""What the servers are told, besides where they are and how many may connect; all else is as it comes."""
# Where no figure means anything, nobody has to wait for the disk.
_QUICK_POSTGRESQL: Final = {"fsync": "off"}
_QUICK_MARIADB: Final = {"innodb_flush_log_at_trx_commit": "2", "innodb_flush_method": "nosync"}


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: figures for programs, tables for a terminal, and its Markdown, which begins with a heading.

    `asked` are the figures of `asks.ASKS` that it measured, by their names there; `charts` stand below the heading.
    """

    figures: Any
    tables: Sequence[Table]
    markdown: str
    asked: Mapping[str, float] = field(default_factory=dict)
    charts: Sequence[Chart] = ()


class Bench:
    """Servers and databases to measure on, made when they are asked for, and how long to go on.

    `turns` is how often a call is timed. With `quick`, everything is as small as it can be: that it works is to be seen,
    and no figure means anything. All sections share the servers, and those that only read share what `populated` gives.
    """

    def __init__(self, stack: contextlib.ExitStack, stage: Stage, *, turns: int, quick: bool) -> None:
        self.stage = stage
        self.turns = turns
        self.quick = quick
        self.versions: dict[str, str] = {}
        self._end = time.monotonic() + _LONGEST
        self._stack = stack
        self._postgres: PostgresServer | None = None
        self._mariadb: MariaDBServer | None = None
        self._templates: dict[str, Any] = {}
        self._populated: dict[int, str] = {}
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lifecycle-bench-")))

    def pick(self, usual: T, quick: T) -> T:
        """How many of something to measure with."""
        return quick if self.quick else usual

    def until(self, seconds: float) -> float:
        """When to stop measuring what may take so many seconds, by `time.monotonic`."""
        return min(time.monotonic() + (min(seconds, 1.0) if self.quick else seconds), self._end)

    @property
    def postgres(self) -> PostgresServer:
        """The server. Raises `ServerUnavailable` on a machine without PostgreSQL 18."""
        if self._postgres is None:
            self._postgres = self._stack.enter_context(
                PostgresServer(find_postgres(18), settings=POSTGRESQL | self.pick({}, _QUICK_POSTGRESQL))
            )
            self.versions["PostgreSQL"] = self._postgres.version
        return self._postgres

    @property
    def mariadb(self) -> MariaDBServer:
        """The server. Raises `ServerUnavailable` on a machine without MariaDB."""
        if self._mariadb is None:
            self._mariadb = self._stack.enter_context(
                MariaDBServer(find_mariadb(), settings=MARIADB | self.pick({}, _QUICK_MARIADB))
            )
            self.versions["MariaDB"] = self._mariadb.version
        return self._mariadb

    @contextlib.contextmanager
    def postgresql(self, name: str, *, migrated: bool = True) -> Iterator[str]:
        """The URL of a database of its own on PostgreSQL, with our tables unless told otherwise."""
        try:
            yield self.postgres.create_database(name, template=self._migrated_database() if migrated else None)
        finally:
            self.postgres.drop_database(name)

    @contextlib.contextmanager
    def on_mariadb(self, name: str) -> Iterator[str]:
        """The URL of a database of its own on MariaDB, with our tables."""
        url = self.mariadb.create_database(name)
        try:
            migrate.upgrade(url)
            yield url
        finally:
            self.mariadb.drop_database(name)

    @contextlib.contextmanager
    def sqlite(self, name: str) -> Iterator[str]:
        """The URL of an SQLite file of its own, with our tables."""
        if "sqlite" not in self._templates:
            self._templates["sqlite"] = self.folder / "migrated.db"
            migrate.upgrade(f"sqlite:///{self._templates['sqlite']}")
        path = self.folder / f"{name}.db"
        try:
            with (
                contextlib.closing(sqlite3.connect(self._templates["sqlite"])) as migrated,
                contextlib.closing(sqlite3.connect(path)) as copy,
            ):
                migrated.backup(copy)
            yield f"sqlite:///{path}"
        finally:
            for left in self.folder.glob(f"{path.name}*"):
                left.unlink()

    def populated(self, sessions: int) -> str:
        """The URL of a database on PostgreSQL with so many sessions of one tenant, and some of others: to be read only."""
        if sessions not in self._populated:
            url = self.postgres.create_database(f"populated_{sessions}", template=self._migrated_database())
            population.fill(url, sessions)
            self._populated[sessions] = url
        return self._populated[sessions]

    def _migrated_database(self) -> str:
        """The name of a database with our tables, to make others from, as a migration takes its time."""
        if "postgresql" not in self._templates:
            migrate.upgrade(self.postgres.create_database("migrated"))
            self._templates["postgresql"] = "migrated"
        return str(self._templates["postgresql"])
