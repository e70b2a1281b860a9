"""A saver's calls, written once: generators of what to ask the manager, run by a sync or an async method.

Either kind of manager serves both, as far as it can: a blocking one's calls run on threads for coroutines, and an async
one's in the event loop that used it first, for which other threads wait.
"""

import asyncio
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from lifecycle.adapters.calls import settled
from lifecycle.errors import InvalidArgument, LifecycleError
from lifecycle.manager.asynchronous import AsyncSessionManager
from lifecycle.manager.blocking import SessionManager
from lifecycle.manager.methods import async_method, sync_method
from lifecycle.operations import graphs, lifecycle, sessions
from lifecycle.operations.typing import Steps

T = TypeVar("T")
Manager = SessionManager | AsyncSessionManager

_THREADS: Final = 32


class Ask(NamedTuple):
    """A method to call and its arguments."""

    method: str
    arguments: tuple[Any, ...]
    named: dict[str, Any]


Asking = Generator[Ask, Any, T]


def ask(method: str, *arguments: Any, **named: Any) -> Ask:
    """A call of one of the methods below."""
    return Ask(method, arguments, named)


_OPERATIONS: Final[Mapping[str, Callable[..., Steps[Any]]]] = {
    "put": graphs.put_graph_checkpoint,
    "put_writes": graphs.put_graph_writes,
    "read": graphs.read_graph,
    "read_rows": graphs.read_graph_rows,
    "places": graphs.list_graph_places,
    "remove": graphs.remove_graph_checkpoints,
    "copy": graphs.copy_graph,
    "open_session": sessions.open_session,
    "delete_session": sessions.delete_session,
    "reopen_session": lifecycle.reopen_session,
}


class _Operations:
    """The operations that savers need, as methods on a manager's driver."""

    def __init__(self, manager: Manager) -> None:
        self.settings = manager.settings
        self._context = manager._context  # noqa: SLF001 - an extension of the manager
        self._driver = manager._driver  # noqa: SLF001 - as above


# Those of either kind of manager: coroutines, on an async one.
_Blocking = type("_Blocking", (_Operations,), {name: sync_method(one) for name, one in _OPERATIONS.items()})
_Awaiting = type("_Awaiting", (_Operations,), {name: async_method(one) for name, one in _OPERATIONS.items()})


class Caller:
    """Runs a saver's calls on a manager."""

    def __init__(self, manager: Manager) -> None:
        if not isinstance(manager, SessionManager | AsyncSessionManager):
            raise InvalidArgument(
                f"manager must be a SessionManager or an AsyncSessionManager, not {type(manager).__name__}"
            )
        self._blocking = _Blocking(manager) if isinstance(manager, SessionManager) else None
        self._awaiting = _Awaiting(manager) if isinstance(manager, AsyncSessionManager) else None
        self._guard = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, asking: Asking[T]) -> T:
        """What comes of the calls, waited for."""
        if self._blocking is not None:
            return self._run(asking)
        loop = self._loop
        if loop is None or not loop.is_running():
            raise LifecycleError(
                "this saver is on an AsyncSessionManager: use the graph's async methods, or give it a SessionManager"
            )
        if asyncio._get_running_loop() is loop:  # noqa: SLF001 - asks without an error where there is none
            raise LifecycleError("this call would wait for the event loop that it is made in: use the async method")
        return asyncio.run_coroutine_threadsafe(self._arun(asking), loop).result()

    async def arun(self, asking: Asking[T]) -> T:
        """The same in an event loop. It is carried through though the caller is cancelled, who is told so behind it.

        Values are serialized before anything is waited for: the graph goes on meanwhile, and some change in place.
        """
        try:
            first = next(asking)
        except StopIteration as done:
            early: T = done.value
            return early
        if self._blocking is not None:
            call = partial(copy_context().run, self._run, asking, first)
            return await settled(self._on_thread(call))
        loop = asyncio.get_running_loop()
        with self._guard:
            if self._loop is None:
                self._loop = loop
        if self._loop is not loop:
            raise LifecycleError(
                "this AsyncSessionManager belongs to the event loop that used it first: "
                "give the saver a SessionManager, which any loop may use"
            )
        return await settled(self._arun(asking, first))

    async def _on_thread(self, call: Any) -> Any:
        with self._guard:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="lifecycle-langgraph")
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _run(self, asking: Asking[T], first: Ask | None = None) -> T:
        try:
            wanted = first or next(asking)
            while True:
                try:
                    answer = getattr(self._blocking, wanted.method)(*wanted.arguments, **wanted.named)
                except LifecycleError as error:
                    wanted = asking.throw(error)
                else:
                    wanted = asking.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result

    async def _arun(self, asking: Asking[T], first: Ask | None = None) -> T:
        try:
            wanted = first or next(asking)
            while True:
                try:
                    answer = await getattr(self._awaiting, wanted.method)(*wanted.arguments, **wanted.named)
                except LifecycleError as error:
                    wanted = asking.throw(error)
                else:
                    wanted = asking.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result
