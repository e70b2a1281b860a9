"""A manager's methods as coroutines for a framework's event loop, whichever kind of manager it is.

A blocking manager's run on threads: any number of event loops may use it, one after the other or at once, as it is
with frameworks that run a loop for each call (`Runner.run_sync`, `Runner.run`). An async one's run in the loop
itself, without a thread's detour, and it belongs to the loop that used it first: connections to PostgreSQL do.
"""

import asyncio
import threading
import weakref
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, Final, TypeVar

from lifecycle.errors import InvalidArgument, LifecycleError
from lifecycle.manager.asynchronous import AsyncSessionManager
from lifecycle.manager.blocking import SessionManager

T = TypeVar("T")
Manager = SessionManager | AsyncSessionManager

# Callers that wait are what group commit lives on: of 64 at once on two cores, 32 threads serve twice as many a second
# as asyncio's default of six, and 64 no more.
_THREADS: Final = 32
_guard: Final = threading.Lock()
_executors: Final[weakref.WeakKeyDictionary[SessionManager, ThreadPoolExecutor]] = weakref.WeakKeyDictionary()
_loops: Final[weakref.WeakKeyDictionary[AsyncSessionManager, asyncio.AbstractEventLoop]] = weakref.WeakKeyDictionary()


class Calls:
    """The methods of a manager, to be awaited."""

    def __init__(self, manager: Manager) -> None:
        if not isinstance(manager, SessionManager | AsyncSessionManager):
            raise InvalidArgument(
                f"manager must be a SessionManager or an AsyncSessionManager, not {type(manager).__name__}"
            )
        self.manager = manager

    async def ask(self, method: str, /, *arguments: Any, **named: Any) -> Any:
        """What a method returns."""
        if isinstance(self.manager, SessionManager):
            return await _on_thread(self.manager, method, arguments, named)
        _check_loop(self.manager)
        return await getattr(self.manager, method)(*arguments, **named)

    async def do(self, method: str, /, *arguments: Any, **named: Any) -> Any:
        """The same, carried through: a caller that is cancelled is told so once it is known what came of it."""
        return await settled(self.ask(method, *arguments, **named))


async def settled(work: Coroutine[Any, Any, T]) -> T:
    """What comes of the work. It is carried on though its caller is cancelled, which he hears of when it is done."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # looked at, so that nobody is told that it was not
    raise cancelled


async def _on_thread(manager: SessionManager, method: str, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    with _guard:
        executor = _executors.get(manager)
        if executor is None:
            executor = _executors[manager] = ThreadPoolExecutor(_THREADS, thread_name_prefix="lifecycle-adapter")
    call = partial(copy_context().run, getattr(manager, method), *arguments, **named)
    return await asyncio.get_running_loop().run_in_executor(executor, call)


def _check_loop(manager: AsyncSessionManager) -> None:
    loop = asyncio.get_running_loop()
    with _guard:
        if _loops.setdefault(manager, loop) is not loop:
            raise LifecycleError(
                "this AsyncSessionManager belongs to the event loop that used it first: "
                "give the adapter a SessionManager, which any loop may use"
            )
