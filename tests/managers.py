"""Managers for tests: one body serves sync and async; and the clock, moved by moving times in rows."""

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from lifecycle import AsyncSessionManager, SessionManager, Settings, migrate
from lifecycle.lease_context import AsyncLeaseContext


class Blocking:
    """An async manager behind blocking calls, so that one test body serves both kinds."""

    def __init__(self, manager: AsyncSessionManager, loop: asyncio.AbstractEventLoop) -> None:
        self._manager = manager
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._manager, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            answer = method(*args, **kwargs)
            if isinstance(answer, AsyncSessionManager):
                return Blocking(answer, self._loop)
            if isinstance(answer, AsyncLeaseContext):
                return self._held(answer)
            if not inspect.iscoroutine(answer):
                return answer
            return asyncio.run_coroutine_threadsafe(answer, self._loop).result(60)

        return call

    @contextlib.contextmanager
    def _held(self, context: AsyncLeaseContext) -> Iterator[Any]:
        def wait(coroutine: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

        lease = wait(context.__aenter__())
        try:
            yield lease
        finally:
            wait(context.__aexit__(None, None, None))


@contextlib.contextmanager
def opened(settings: Settings, kind: str) -> Iterator[Any]:
    """A manager with settings of the test's own, `sync` or `async`, to be called alike."""
    if kind == "sync":
        with SessionManager.open(settings) as manager:
            yield manager
        return
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    blocking = Blocking(AsyncSessionManager.open(settings), loop)
    try:
        yield blocking
    finally:
        blocking.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def backdate(url: str, table: sa.Table, *where: sa.ColumnElement[bool], **values: Any) -> None:
    """Move the clock: write times into every row, or those that are meant."""
    with connected(url) as connection:
        connection.execute(sa.update(table).where(*where).values(values))


@contextlib.contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    """A transaction of the test's own, behind the managers' backs."""
    with migrate.connected(url) as connection, connection.begin():
        yield connection
