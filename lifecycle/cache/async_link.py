"""Connections to the cache for the tasks of an event loop."""

import asyncio
import math
from typing import Any, Final

from lifecycle.cache.commands import Ask
from lifecycle.cache.links import Budget, CacheBusy, CacheFailure, CacheRefusal, clock, described, parsed, prefix
from lifecycle.settings.cache import CacheSettings

# When a timer comes so late, the event loop was busy: the answer may be there, unread.
_BUSY: Final = 0.005


class AsyncLink:
    """Lends connections to tasks; each is used by one at a time."""

    def __init__(self, settings: CacheSettings, namespace: str) -> None:
        self._class, self._arguments = parsed(settings, asynchronous=True)
        self._namespace = namespace
        self._permits = asyncio.Semaphore(settings.pool_size)
        self._idle: list[Any] = []
        self._closed = False

    async def ask(self, budget: Budget, ask: Ask) -> Any:
        """The server's answer. Raises `CacheFailure` when there is none within the budget, `CacheRefusal` for its error."""
        began = clock()
        asked = False
        try:
            async with asyncio.timeout(None) as limit:
                timer = _Timer(limit, max(0.0, budget.left))
                try:
                    async with self._permits:
                        asked = True
                        return await self._converse(await self._take(), ask)
                finally:
                    timer.cancel()
        except TimeoutError:
            if not asked:
                raise CacheBusy("all connections are in use") from None
            raise CacheFailure("timed out") from None
        finally:
            budget.left -= clock() - began

    async def _converse(self, connection: Any, ask: Ask) -> Any:
        from valkey.exceptions import ResponseError

        own = connection.key_prefix
        try:
            keys = [own + key for key in ask.keys]
            await connection.send_command(*ask.head, *keys, *ask.tail, check_health=False)
            answer = await connection.read_response()
        except ResponseError as error:
            await self._give(connection)
            raise CacheRefusal(described(error)) from None
        except Exception as error:  # noqa: BLE001 - whatever a broken server makes the library raise
            await connection.disconnect(nowait=True)
            raise CacheFailure(described(error)) from None
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        await self._give(connection)
        return answer

    async def _take(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            if not connection._reader.at_eof():  # noqa: SLF001 - the library's own look takes a turn of the event loop
                return connection
            await connection.disconnect(nowait=True)
        connection = self._class(**self._arguments)
        try:
            await connection.connect()
            await connection.send_command("INFO", "server", check_health=False)
            connection.key_prefix = prefix(self._namespace, await connection.read_response())
        except Exception as error:  # noqa: BLE001 - whatever a broken server makes the library raise
            await connection.disconnect(nowait=True)
            raise CacheFailure(described(error)) from None
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def _give(self, connection: Any) -> None:
        if self._closed:
            await connection.disconnect(nowait=True)
        else:
            self._idle.append(connection)

    async def close(self) -> None:
        """Close the connections; one that is in use is closed when it comes back."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait=True)


class _Timer:
    """Ends a block after so many seconds in which the event loop was free to see the answer."""

    __slots__ = ("_due", "_handle", "_limit", "_loop", "_seconds")

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + seconds
        self._handle = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        now = self._loop.time()
        if now - self._due > _BUSY:
            self._due = math.inf  # once
            self._handle = self._loop.call_later(self._seconds, self._ring)
        else:
            self._limit.reschedule(now)

    def cancel(self) -> None:
        """Let it go on."""
        self._handle.cancel()
