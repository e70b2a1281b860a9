"""Answers that are kept for a moment, so that not every request asks the database."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Fresh(Generic[V]):
    """What was found under a key in the last `seconds`; what was not found is asked for anew each time.

    Of requests that ask for the same at the same time one asks the database, and the others wait for its answer.
    """

    def __init__(self, seconds: float, *, most: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._found: OrderedDict[Hashable, tuple[V, float]] = OrderedDict()
        self._asking: dict[Hashable, asyncio.Task[V | None]] = {}

    def known(self, key: Hashable) -> bool:
        """Whether something was found under the key the last time, however long ago."""
        return key in self._found

    async def get(self, key: Hashable, ask: Callable[[], Awaitable[V | None]]) -> V | None:
        """What is under the key; None where there is nothing. Raises what `ask` does."""
        kept = self._found.get(key)
        if kept is not None and self._clock() < kept[1]:
            return kept[0]
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.ensure_future(self._ask(key, ask))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    async def _ask(self, key: Hashable, ask: Callable[[], Awaitable[V | None]]) -> V | None:
        began = self._clock()  # what is found is as old as the question
        found = await ask()
        self._found.pop(key, None)
        if found is not None:
            self._found[key] = (found, began + self._seconds)
            if len(self._found) > self._most:
                self._found.popitem(last=False)
        return found
