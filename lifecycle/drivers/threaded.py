"""The async driver for SQLite and MariaDB: the sync one on worker threads.

SQLite has one writer whatever we do, so one thread serves it; going through aiosqlite costs several times more.
"""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lifecycle.drivers.embedded import DbapiDriver
from lifecycle.drivers.stepping import call_async_hook
from lifecycle.operations.requests import CallHook
from lifecycle.operations.typing import Steps, T


class ThreadedDriver:
    """Runs operations on threads; hooks are awaited in the caller's event loop."""

    def __init__(self, driver: DbapiDriver, threads: int) -> None:
        self.driver = driver
        self.dialect = driver.dialect
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="lifecycle")

    async def close(self) -> None:
        """Close the connections, then the threads."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self.driver.close)
        self._executor.shutdown(wait=False)

    async def run(self, operation: Steps[T]) -> T:
        """Run one operation to its end."""
        self.driver.check_process()
        loop = asyncio.get_running_loop()
        bridged = _bridge(operation, loop)
        return await loop.run_in_executor(self._executor, functools.partial(self.driver.run, bridged))


def _bridge(operation: Steps[T], loop: asyncio.AbstractEventLoop) -> Steps[T]:
    """Pass the operation's requests on, its hooks wrapped so that they run in the event loop."""
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            request = operation.send(answer) if error is None else operation.throw(error)
        except StopIteration as done:
            value: T = done.value
            return value
        error = None
        try:
            answer = yield CallHook(_in_loop(request, loop), ()) if isinstance(request, CallHook) else request
        except Exception as raised:  # noqa: BLE001 - it is thrown on into the operation
            error = raised


def _in_loop(request: CallHook, loop: asyncio.AbstractEventLoop) -> Callable[[], Any]:
    return lambda: asyncio.run_coroutine_threadsafe(call_async_hook(request), loop).result()
