"""The async driver for SQLite, JSONL files and MariaDB: the sync one on worker threads.

SQLite has one writer whatever we do, so one thread serves it; going through aiosqlite costs several times more.
Its reads by key, which take microseconds and wait for nobody, are made where they are asked for.
"""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lifecycle.drivers.dbapi import DbapiDriver
from lifecycle.drivers.sqlite import UNANSWERED, SqliteDialect
from lifecycle.drivers.stepping import call_async_hook
from lifecycle.operations.requests import CallHook
from lifecycle.operations.typing import Steps, T


class ThreadedDriver:
    """Runs operations on threads; hooks are awaited in the caller's event loop."""

    def __init__(self, driver: DbapiDriver, threads: int) -> None:
        self.driver = driver
        self.dialect = driver.dialect
        self._at_once = driver.meet_at_once if isinstance(driver, SqliteDialect) else _unanswered
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="lifecycle")

    async def close(self) -> None:
        """Close the connections, then the threads."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self.driver.close)
        self._executor.shutdown(wait=False)

    async def run(self, operation: Steps[T]) -> T:
        """Run one operation to its end."""
        self.driver.check_process()
        try:
            request = next(operation)
            while (answer := self._at_once(request)) is not UNANSWERED:
                request = operation.send(answer)
        except StopIteration as done:
            value: T = done.value
            return value
        loop = asyncio.get_running_loop()
        bridged = _bridge(operation, request, loop)
        return await loop.run_in_executor(self._executor, self.driver.run, bridged)


def _unanswered(_request: Any) -> Any:
    return UNANSWERED


def _bridge(operation: Steps[T], request: Any, loop: asyncio.AbstractEventLoop) -> Steps[T]:
    """Pass the operation's requests on from this one, its hooks wrapped so that they run in the event loop."""
    while True:
        try:
            answer = yield CallHook(_in_loop(request, loop), ()) if isinstance(request, CallHook) else request
        except Exception as raised:  # noqa: BLE001 - it is thrown on into the operation
            step = functools.partial(operation.throw, raised)
        else:
            step = functools.partial(operation.send, answer)
        try:
            request = step()
        except StopIteration as done:
            value: T = done.value
            return value


def _in_loop(request: CallHook, loop: asyncio.AbstractEventLoop) -> Callable[[], Any]:
    return lambda: asyncio.run_coroutine_threadsafe(call_async_hook(request), loop).result()
