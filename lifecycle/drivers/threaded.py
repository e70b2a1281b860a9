"""The async driver for SQLite, JSONL files and MariaDB: the sync one on worker threads.

SQLite has one writer whatever we do, so one thread serves it; going through aiosqlite costs several times more. What
tasks have written while that thread was busy is committed together (group commit, as in `combining`). Its reads by key, which take
microseconds and wait for nobody, are made where they are asked for.
"""

import asyncio
import contextlib
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lifecycle.drivers.combining import MOST, Write
from lifecycle.drivers.dbapi import DbapiDriver
from lifecycle.drivers.sqlite import UNANSWERED, SqliteDialect, SqliteDriver
from lifecycle.drivers.stepping import call_async_hook, run_async
from lifecycle.errors import LifecycleError, StorageUnavailable
from lifecycle.operations.requests import CallHook, Pause
from lifecycle.operations.typing import Steps, T

Waiting = tuple[Any, "asyncio.Future[Any]", asyncio.AbstractEventLoop]


class ThreadedDriver:
    """Meets requests on threads; hooks are awaited in the caller's event loop."""

    def __init__(self, driver: DbapiDriver, threads: int) -> None:
        self.driver = driver
        self.dialect = driver.dialect
        self._at_once = driver.meet_at_once if isinstance(driver, SqliteDialect) else _unanswered
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="lifecycle")
        self._closed = False
        self._guard = threading.Lock()
        self._writes: deque[Waiting] = deque()
        self._writing = False

    async def close(self) -> None:
        """Close the connections, then the threads."""
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._executor, self.driver.close)
        self._executor.shutdown(wait=False)

    async def run(self, operation: Steps[T]) -> T:
        """Run one operation to its end."""
        self.driver.check_process()
        return await run_async(operation, self._meet)

    async def _meet(self, request: Any) -> Any:
        answer = self._at_once(request)
        if answer is not UNANSWERED:
            return answer
        if isinstance(request, CallHook):
            return await call_async_hook(request)
        if isinstance(request, Pause):
            await asyncio.sleep(request.seconds)
            return None
        if self._closed:
            raise LifecycleError("this manager is closed")
        loop = asyncio.get_running_loop()
        if not isinstance(self.driver, SqliteDriver) or not self.driver.groups(request):
            return await loop.run_in_executor(self._executor, self.driver.meet, request)
        answered: asyncio.Future[Any] = loop.create_future()
        with self._guard:
            self._writes.append((request, answered, loop))
            begins = not self._writing
            self._writing = True
        if begins:
            self._executor.submit(self._write)
        return await answered

    def _write(self) -> None:
        """Commit what waits, until nothing does."""
        driver = self.driver
        assert isinstance(driver, SqliteDriver)  # noqa: S101 -- for the types
        while True:
            with self._guard:
                batch = [self._writes.popleft() for _ in range(min(MOST, len(self._writes)))]
                if not batch:
                    self._writing = False
                    return
            wanted = [waiting for waiting in batch if not waiting[1].cancelled()]
            written: list[Write] = []
            try:
                written = driver.meet_together([request for request, _, _ in wanted]) if wanted else []
            finally:
                # Whatever happened, nobody waits for an answer that does not come.
                unknown = StorageUnavailable("the write was interrupted", outcome_unknown=True)
                written += [Write(request, error=unknown) for request, _, _ in wanted[len(written) :]]
                _deliver(wanted, written)


def _deliver(wanted: list[Waiting], written: list[Write]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[Any]] = {}
    for (_, answered, loop), write in zip(wanted, written, strict=True):
        by_loop.setdefault(loop, []).append((answered, write))
    for loop, answers in by_loop.items():
        with contextlib.suppress(RuntimeError):  # it is closed, and nobody waits there
            loop.call_soon_threadsafe(_give, answers)


def _give(answers: list[Any]) -> None:
    for answered, write in answers:
        if answered.done():
            continue  # its caller was cancelled meanwhile
        if write.error is not None:
            answered.set_exception(write.error)
        else:
            answered.set_result(write.value)


def _unanswered(_request: Any) -> Any:
    return UNANSWERED
