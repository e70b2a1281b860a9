"""A proxy in front of a database's unix socket that cuts, delays and swallows what goes through it."""

import contextlib
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self


class Weather:
    """Listens on a unix socket of its own and passes on what it gets, as well as the weather allows.

    In a black hole everything sent stays on its way: new connections are taken and not answered. When it ends, what
    was on its way arrives, however late, even where the client has gone meanwhile.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._directory = Path(tempfile.mkdtemp(prefix="weather-", dir="/tmp"))
        self.socket = self._directory / target.name
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.socket))
        self._listener.listen(128)
        self._lock = threading.Lock()
        self._clients: set[socket.socket] = set()
        self._ends: set[socket.socket] = set()
        self._passing = threading.Event()
        self._passing.set()
        self._delay = 0.0
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        """Begin to listen."""
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Cut everything, and listen no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(10)
        self.clear()
        self._shut(self._ends)
        deadline = time.monotonic() + 10
        while self._ends and time.monotonic() < deadline:
            time.sleep(0.01)
        shutil.rmtree(self._directory, ignore_errors=True)

    def cut(self) -> int:
        """Cut the clients off; how many there were."""
        return self._shut(self._clients)

    def delay(self, seconds: float) -> None:
        """Hold every piece up from now on."""
        self._delay = seconds

    def swallow(self) -> None:
        """Pass nothing on until `clear`."""
        self._passing.clear()

    def clear(self) -> None:
        """Let everything pass, what was held up first."""
        self._delay = 0.0
        self._passing.set()

    def _shut(self, ends: set[socket.socket]) -> int:
        with self._lock:
            for end in ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            return len(ends)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            _start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        """The life of one connection: both directions, until both have ended."""
        with client, socket.socket(socket.AF_UNIX) as server:
            with self._lock:
                self._clients.add(client)
                self._ends |= {client, server}
            try:
                self._passing.wait()
                server.connect(str(self._target))
                back = _start(self._copy, server, client)
                self._copy(client, server)
                back.join()
            except OSError:
                pass  # there is no server now
            finally:
                with self._lock:
                    self._clients.discard(client)
                    self._ends -= {client, server}

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._passing.wait()
                if self._delay:
                    time.sleep(self._delay)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def _start(run: Callable[..., Any], *args: Any) -> threading.Thread:
    thread = threading.Thread(target=run, args=args, daemon=True)
    thread.start()
    return thread
