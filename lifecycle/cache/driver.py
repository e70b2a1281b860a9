"""The drivers that a manager gets when there is a cache: those of its database, asked after the cache."""

import asyncio
from collections.abc import Generator
from typing import Any, cast

from lifecycle.cache.async_link import AsyncLink
from lifecycle.cache.cache import borrow, release
from lifecycle.cache.commands import Ask
from lifecycle.cache.links import Budget
from lifecycle.cache.steps import steps_for
from lifecycle.drivers.stepping import Stepper, run, run_async
from lifecycle.operations.requests import OfSession
from lifecycle.operations.typing import Steps, T
from lifecycle.settings import Settings


class CachedDriver(Stepper):
    """A sync driver behind a cache. What it does not know itself is the inner driver's."""

    def __init__(self, inner: Any, settings: Settings) -> None:
        super().__init__()
        self._inner = inner
        self.cache = borrow(settings)
        self._open = True

    def run(self, operation: Steps[T]) -> T:
        """Run one operation to its end; the cache may cost all of it no more than its timeout."""
        if not self._open:
            return cast("T", self._inner.run(operation))  # which says that it is closed
        self.check_process()
        budget = self._budget()
        try:
            return run(operation, lambda request: self._meet(request, budget))
        finally:
            self.cache.cost(budget)

    def close(self) -> None:
        """Close the inner driver, then the cache for the last of its users."""
        self._inner.close()
        if self._open:
            self._open = False
            release(self.cache)

    def _meet(self, request: Any, budget: Budget) -> Any:
        steps = steps_for(self.cache, request)
        if steps is None:
            return self._inner.run(_only(request))
        # A sweep drops batch after batch, and a large one in parts: each has its own time.
        shared = budget if isinstance(request, OfSession) else None
        try:
            step = next(steps)
            while True:
                try:
                    if isinstance(step, Ask):
                        answer = self.cache.link.ask(shared or self._budget(), step)
                    else:
                        answer = self._inner.run(_only(step))
                except BaseException as error:  # noqa: BLE001 - thrown on: the steps know what to do about each
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            return done.value

    def _budget(self) -> Budget:
        return Budget(self.cache.settings.timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_inner"], name)


class AsyncCachedDriver(Stepper):
    """An async driver behind a cache. What it does not know itself is the inner driver's."""

    def __init__(self, inner: Any, settings: Settings) -> None:
        super().__init__()
        self._inner = inner
        self.cache = borrow(settings)
        self._link = AsyncLink(settings.cache, self.cache.namespace)
        self._open = True

    async def run(self, operation: Steps[T]) -> T:
        """Run one operation to its end; the cache may cost all of it no more than its timeout."""
        if not self._open:
            return cast("T", await self._inner.run(operation))  # which says that it is closed
        self.check_process()
        budget = self._budget()
        try:
            return await run_async(operation, lambda request: self._meet(request, budget))
        finally:
            self.cache.cost(budget)

    async def close(self) -> None:
        """Close the inner driver, then the cache for the last of its users."""
        await self._inner.close()
        if self._open:
            self._open = False
            await self._link.close()
            await asyncio.to_thread(release, self.cache)

    async def _meet(self, request: Any, budget: Budget) -> Any:
        steps = steps_for(self.cache, request)
        if steps is None:
            return await self._inner.run(_only(request))
        # A sweep drops batch after batch, and a large one in parts: each has its own time.
        shared = budget if isinstance(request, OfSession) else None
        try:
            step = next(steps)
            while True:
                try:
                    if isinstance(step, Ask):
                        answer = await self._link.ask(shared or self._budget(), step)
                    else:
                        answer = await self._inner.run(_only(step))
                except BaseException as error:  # noqa: BLE001 - thrown on: the steps know what to do about each
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            return done.value

    def _budget(self) -> Budget:
        return Budget(self.cache.settings.timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_inner"], name)


def _only(request: Any) -> Generator[Any, Any, Any]:
    return (yield request)
