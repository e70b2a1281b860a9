"""A proxy before a PostgreSQL server that counts the round trips a client makes."""

import contextlib
import shutil
import socket
import struct
import tempfile
import threading
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

from lifecycle import Settings

_SOCKET = ".s.PGSQL.5432"


class CountingProxy:
    """Listens on a unix socket of its own and passes everything on.

    A client waits for the server after a Query and after a Sync (PostgreSQL's manual, section 54.2): those are the
    round trips. The startup of a connection is not counted.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = Path(parse_qs(parts.query)["host"][0]) / _SOCKET
        self._directory = Path(tempfile.mkdtemp(prefix="wire-", dir="/tmp"))
        self.url = f"postgresql://{parts.netloc}{parts.path}?host={self._directory}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._directory / _SOCKET))
        self._listener.listen()
        self._threads: list[threading.Thread] = []
        self._ends: list[socket.socket] = []
        self.round_trips = 0

    @property
    def settings(self) -> Settings:
        """For a manager behind it that talks on its own connections only: news travels beside them."""
        return Settings(database={"url": self.url, "notify": False})

    def __enter__(self) -> Self:
        """Begin to listen."""
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        """Close what is open."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for end in self._ends:
            end.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self, run: object, *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._target))
            self._ends += [client, server]
            self._start(self._forward, client, server)
            self._start(_copy, server, client)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        """Pass the client's messages on and look at their types."""
        stream = client.makefile("rb")
        typed = False
        with contextlib.suppress(OSError, struct.error):
            while True:
                kind = stream.read(1) if typed else b""
                size = stream.read(4)
                (length,) = struct.unpack("!i", size)
                body = stream.read(length - 4)
                typed = True
                if kind in {b"Q", b"S"}:
                    self.round_trips += 1
                server.sendall(kind + size + body)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)
        stream.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
