"""A manager of either kind for code that awaits: with event loops of its own making, as frameworks have them."""

import asyncio
import contextlib
import inspect
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from lifecycle import AsyncSessionManager, SessionManager, Settings

T = TypeVar("T")
KINDS = ("blocking", "async")


class Loops:
    """Runs coroutines that use a manager: those of a blocking one in a new event loop each, those of an async one in one."""

    def __init__(self, manager: Any, loop: asyncio.AbstractEventLoop | None) -> None:
        self.manager = manager
        self._loop = loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What comes of a coroutine."""
        return asyncio.run(work) if self._loop is None else self._loop.run_until_complete(work)

    def call(self, method: str, *arguments: Any, **named: Any) -> Any:
        """What a method of the manager returns."""
        answer = getattr(self.manager, method)(*arguments, **named)
        return self.run(answer) if inspect.iscoroutine(answer) else answer


@contextlib.contextmanager
def looped(url: str | Settings, kind: str) -> Iterator[Loops]:
    """Loops with a manager of this kind."""
    if kind == "blocking":
        with SessionManager.open(url) as manager:
            yield Loops(manager, None)
        return
    loop = asyncio.new_event_loop()
    concurrent = AsyncSessionManager.open(url)
    try:
        yield Loops(concurrent, loop)
    finally:
        loop.run_until_complete(concurrent.close())
        loop.close()
