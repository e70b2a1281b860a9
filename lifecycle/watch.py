"""Watching the audit log: every transition once, in the order of commits, from a cursor on.

A watch looks every `poll` seconds, and at once when it hears of news before (`news.py`).
"""

import asyncio
import contextlib
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Self

from lifecycle.errors import InvalidArgument, LifecycleError
from lifecycle.models.events import TransitionEvent
from lifecycle.news import LOG, hearing
from lifecycle.operations import watching
from lifecycle.operations.context import check_count
from lifecycle.operations.places import START, Place, read_cursor

if TYPE_CHECKING:
    from lifecycle.manager.asynchronous import AsyncSessionManager
    from lifecycle.manager.blocking import SessionManager

_BATCH: Final = 10_000
_LONGEST: Final = 3600.0
_making = threading.Lock()
clock = time.monotonic


class Watches:
    """The watches on one driver: what wakes them, and ends them when it closes."""

    def __init__(self, driver: Any) -> None:
        self.closed = False
        self._guard = threading.Lock()
        self._hearing = contextlib.ExitStack()
        self._driver = driver
        self._hears = False
        self._open: weakref.WeakSet[_Stream] = weakref.WeakSet()

    def add(self, stream: "_Stream") -> None:
        """Wake it from now on, for as long as somebody has it."""
        with self._guard:
            self._open.add(stream)
            if not self._hears:
                self._hears = True
                self._hearing.enter_context(hearing(self._driver, LOG, self.wake))

    def wake(self) -> None:
        """Have them look now."""
        with self._guard:
            streams = list(self._open)
        for stream in streams:
            stream.wake()

    def close(self) -> None:
        """End them."""
        self.closed = True
        self._hearing.close()
        self.wake()


def watches_on(driver: Any) -> Watches:
    """The watches on a driver."""
    with _making:
        found: Watches | None = getattr(driver, "watches", None)
        if found is None:
            found = driver.watches = Watches(driver)
        return found


class _Stream:
    """What both kinds of watch share: where they stand, what they read ahead, and when they look again."""

    def __init__(
        self, manager: "SessionManager | AsyncSessionManager", after: str | None, poll: float, batch: int,
        timeout: float | None, session_id: str | None,
    ) -> None:  # fmt: skip
        self._context: Any = manager._context  # noqa: SLF001 - built on the manager's own
        self._driver: Any = manager._driver  # noqa: SLF001 - as above
        self._after = None if after is None else read_cursor(after)
        self._poll = _seconds(poll, "poll", 0.001)
        self._limit = check_count(batch, "batch", 1, _BATCH)
        self._timeout = math.inf if timeout is None else _seconds(timeout, "timeout", 0.0, math.inf)
        self._session_id = None if session_id is None else self._context.check_id(session_id)
        self._cursor = after
        self._place = START
        self._started = False
        self._ahead: deque[TransitionEvent] = deque()
        self._ended = False
        self._due = self._quiet_since = -math.inf
        self._woken: Any = threading.Event()
        self._watches = watches_on(self._driver)
        self._watches.add(self)

    @property
    def cursor(self) -> str | None:
        """Where it stands: behind the last event that was given, and whatever came since and is not for it.

        None for an async watch of what comes that has not begun yet.
        """
        return self._cursor

    def wake(self) -> None:
        """Look now instead of after the pause."""
        self._woken.set()

    def _begun(self, place: Place) -> None:
        self._place = place
        self._cursor = place.cursor()
        self._started = True

    def _step(self, since: float) -> TransitionEvent | float | None:
        """What comes next: an event that is at hand, so many seconds' pause, a look at the log (0), or the end."""
        if self._ended:
            return None
        if self._watches.closed:
            raise LifecycleError("this manager is closed")
        if self._ahead:
            event = self._ahead.popleft()
            self._cursor = event.cursor if self._ahead else self._place.cursor()
            return event
        end = since + self._timeout
        if self._quiet_since >= end:
            self._ended = True
            return None
        if self._woken.is_set():
            self._woken.clear()
            return 0.0
        return max(0.0, min(self._due, end) - clock())

    def _reading(self) -> Any:
        return watching.read_transitions(self._context, self._place, limit=self._limit, session_id=self._session_id)

    def _read(self, looked_at: float, answer: tuple[list[TransitionEvent], Place, bool]) -> None:
        events, self._place, more = answer
        self._ahead.extend(events)
        self._due = -math.inf if more else looked_at + self._poll
        if not events:
            self._cursor = self._place.cursor()
            if not more:
                self._quiet_since = looked_at

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """A driver that closes under a question fails in a way of its own."""
        try:
            yield
        except Exception as error:
            if self._watches.closed:
                raise LifecycleError("this manager is closed") from error
            raise


class Watch(_Stream):
    """What `manager.watch(...)` gives: an iterator of `TransitionEvent`s. `close` ends it, from any thread."""

    def __init__(
        self, manager: "SessionManager", after: str | None, poll: float, batch: int, timeout: float | None,
        session_id: str | None,
    ) -> None:  # fmt: skip
        super().__init__(manager, after, poll, batch, timeout, session_id)
        if self._watches.closed:
            raise LifecycleError("this manager is closed")
        self._begun(self._driver.run(watching.start_watch(self._context, self._after)))

    def __iter__(self) -> Self:
        """Itself."""
        return self

    def __next__(self) -> TransitionEvent:
        """The next event, once it is committed. A failure leaves the watch where it stood: it may be asked again."""
        since = clock()
        while (step := self._step(since)) is not None:
            if isinstance(step, TransitionEvent):
                return step
            if step > 0:
                self._woken.wait(step)
                continue
            at = clock()
            with self._asking():
                answer = self._driver.run(self._reading())
            self._read(at, answer)
        raise StopIteration

    def close(self) -> None:
        """End the iteration, one that waits in another thread too."""
        self._ended = True
        self.wake()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.close()


class AsyncWatch(_Stream):
    """`Watch` for `async for`. It begins with the first step, or with `async with`; a step that is cancelled took nothing."""

    def __init__(
        self, manager: "AsyncSessionManager", after: str | None, poll: float, batch: int, timeout: float | None,
        session_id: str | None,
    ) -> None:  # fmt: skip
        super().__init__(manager, after, poll, batch, timeout, session_id)
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def wake(self) -> None:
        """Look now instead of after the pause; any thread may say so."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._woken.set)

    async def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._started:
            return
        if self._watches.closed:
            raise LifecycleError("this manager is closed")
        with self._asking():
            place = await self._driver.run(watching.start_watch(self._context, self._after))
        self._begun(place)

    def __aiter__(self) -> Self:
        """Itself."""
        return self

    async def __anext__(self) -> TransitionEvent:
        """The next event, once it is committed. A failure leaves the watch where it stood: it may be asked again."""
        if not self._ended:
            await self._begin()
        since = clock()
        while (step := self._step(since)) is not None:
            if isinstance(step, TransitionEvent):
                return step
            if step > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(step):
                        await self._woken.wait()
                continue
            at = clock()
            with self._asking():
                answer = await self._driver.run(self._reading())
            self._read(at, answer)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the iteration, one that waits in another task too."""
        self._ended = True
        self.wake()

    async def __aenter__(self) -> Self:
        """Itself, begun."""
        await self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End it."""
        await self.aclose()


def _seconds(value: Any, name: str, least: float, most: float = _LONGEST) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidArgument(f"{name} must be seconds, at least {least:g}, not {value!r}")
    return float(value)
