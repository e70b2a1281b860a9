"""Connections to the cache for threads."""

import select
import socket
import threading
from typing import Any

from lifecycle.cache.commands import Ask
from lifecycle.cache.links import (
    CONNECT_SECONDS,
    Budget,
    CacheBusy,
    CacheFailure,
    CacheRefusal,
    clock,
    described,
    parsed,
    prefix,
)
from lifecycle.settings.cache import CacheSettings


class _Timed:
    """A socket with a time for all that is done on it, where the client library knows one for each step."""

    __slots__ = ("_socket", "until")

    def __init__(self, plain: socket.socket, until: float) -> None:
        self._socket = plain
        self.until = until

    def recv(self, size: int) -> bytes:
        """Receive what is there, until the time."""
        self._socket.settimeout(self._left())
        return self._socket.recv(size)

    def sendall(self, data: bytes) -> None:
        """Send all of it, until the time."""
        self._socket.settimeout(self._left())
        self._socket.sendall(data)

    def _left(self) -> float:
        left = self.until - clock()
        if left <= 0:
            raise TimeoutError("timed out")
        return left

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def _timed(connection_class: type[Any]) -> type[Any]:
    class Timed(connection_class):  # type: ignore[misc]
        def _connect(self) -> _Timed:
            return _Timed(super()._connect(), clock() + CONNECT_SECONDS)

    return Timed


class Link:
    """Lends connections to threads; each is used by one at a time."""

    def __init__(self, settings: CacheSettings, namespace: str) -> None:
        connection_class, self._arguments = parsed(settings, asynchronous=False)
        self._class = _timed(connection_class)
        self._namespace = namespace
        self._size = settings.pool_size
        self._permits = threading.BoundedSemaphore(settings.pool_size)
        self._guard = threading.Lock()
        self._idle: list[Any] = []
        self._closed = False

    def ask(self, budget: Budget, ask: Ask) -> Any:
        """The server's answer. Raises `CacheFailure` when there is none within the budget, `CacheRefusal` for its error."""
        began = clock()
        until = began + budget.left
        try:
            if not self._permits.acquire(timeout=max(0.0, budget.left)):
                raise CacheBusy("all connections are in use")
            try:
                connection = self.take(until)
                return self.converse(connection, until, ask)
            finally:
                self._permits.release()
        finally:
            budget.left -= clock() - began

    def converse(self, connection: Any, until: float, ask: Ask) -> Any:
        """Ask on a connection, and keep it for others unless it failed."""
        from valkey.exceptions import ResponseError

        own = connection.key_prefix
        try:
            connection._sock.until = until  # noqa: SLF001 - a socket of ours
            connection.send_command(*ask.head, *[own + key for key in ask.keys], *ask.tail, check_health=False)
            answer = connection.read_response()
        except ResponseError as error:
            self.give(connection)
            raise CacheRefusal(described(error)) from None
        except Exception as error:  # noqa: BLE001 - whatever a broken server makes the library raise
            connection.disconnect()
            raise CacheFailure(described(error)) from None
        except BaseException:
            connection.disconnect()
            raise
        self.give(connection)
        return answer

    def open(self) -> Any:
        """A new connection, in a few seconds where the name resolves in time. Raises `CacheFailure`."""
        connection = self._class(**self._arguments)
        try:
            connection.connect()
            connection.send_command("INFO", "server", check_health=False)
            connection.key_prefix = prefix(self._namespace, connection.read_response())
        except Exception as error:  # noqa: BLE001 - as above
            connection.disconnect()
            raise CacheFailure(described(error)) from None
        return connection

    def give(self, connection: Any) -> None:
        """Keep a connection for others."""
        with self._guard:
            if not self._closed and len(self._idle) < self._size:
                self._idle.append(connection)
                return
        connection.disconnect()

    def close(self) -> None:
        """Close the connections; one that is in use is closed when it comes back."""
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.disconnect()

    def take(self, until: float) -> Any:
        """A connection, for whoever gives it back."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self.opened(until)
            if not _hung_up(connection):
                return connection
            connection.disconnect()

    def opened(self, until: float) -> Any:
        """A new connection, made by a thread of its own: a name may take long to resolve, and nothing hurries that."""
        opening = _Opening(self)
        threading.Thread(target=opening.run, name="lifecycle-cache-connect", daemon=True).start()
        return opening.wait(until)


class _Opening:
    def __init__(self, link: Link) -> None:
        self._link = link
        self._done = threading.Condition()
        self._connection: Any = None
        self._error: CacheFailure | None = None
        self._awaited = True

    def run(self) -> None:
        connection = error = None
        try:
            connection = self._link.open()
        except CacheFailure as failure:
            error = failure
        with self._done:
            self._connection, self._error = connection, error
            if self._awaited or connection is None:
                self._done.notify_all()
                return
        self._link.give(connection)

    def wait(self, until: float) -> Any:
        with self._done:
            over = self._done.wait_for(lambda: self._connection or self._error, max(0.0, until - clock()))
            self._awaited = False
            if not over:
                raise CacheFailure("no connection in time")
            if self._error is not None:
                raise self._error
            return self._connection


def _hung_up(connection: Any) -> bool:
    """Whether an idle connection has something to read: the server closed it, or said something out of turn."""
    poll = select.poll()
    poll.register(connection._sock.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)  # noqa: SLF001 - a socket of ours
    return bool(poll.poll(0))
