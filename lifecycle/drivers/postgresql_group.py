"""Group commit: the writes that concurrent tasks have in flight are committed together.

A write that finds a lane free goes at once and by itself. Those that come while all lanes are busy queue up, and each
lane that is free takes its share of them in one transaction: not all, or the writes of many callers would gather in one
lane, and server and client take turns at them instead of both being at work. Nobody waits for company, and each returns
when the transaction with its write is committed, not before.

Within a batch the sessions are locked in the order of their keys, as everything does that locks several. A batch in
which one statement fails, or waits for a lock, is rolled back, and each of its writes then runs by itself, on a
connection of its own: no write sees what its neighbours ran into.
"""

import asyncio
import copy
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Container, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from lifecycle.drivers.combining import MOST, MOST_BYTES, NotCommitted
from lifecycle.drivers.postgresql_batch import LOCK_TIMEOUT_MS
from lifecycle.drivers.postgresql_prepared import Prepared, Rows
from lifecycle.errors import LifecycleError, StorageUnavailable
from lifecycle.operations import requests as r

# Writes of one session that lock its row first, and no other.
GROUPED: Final = frozenset({r.CreateSession, r.SaveState, r.Move, r.AddMessages, r.AcquireLease, r.ReleaseLease})
LANES: Final = 2
# So many at the most are not worth a second transaction.
_FEW: Final = 8
PATIENCE: Final = LOCK_TIMEOUT_MS / 1000


@dataclass(slots=True)
class Write:
    """A write that waits for its turn, and the answer its caller waits for."""

    request: Any
    statement: Prepared
    values: list[bytes | None]
    answer: "asyncio.Future[Rows]"

    @property
    def key(self) -> tuple[str, str]:
        """Whose row it locks."""
        return self.request.tenant, self.request.session_id

    @property
    def size(self) -> int:
        """Bytes to send."""
        return sum(len(value) for value in self.values if value is not None)

    def give(self, rows: Rows) -> None:
        """Answer, unless the caller was cancelled meanwhile."""
        if not self.answer.done():
            self.answer.set_result(rows)

    def interrupted(self, _task: object = None) -> None:
        """Raise that it is not known what came of it, if it was not answered: a task of ours was cancelled."""
        self.fail(StorageUnavailable("the write was interrupted", outcome_unknown=True))

    def fail(self, error: Exception) -> None:
        """Raise where the caller waits."""
        if not self.answer.done():
            self.answer.set_exception(error)


Alone = Callable[[Any, Prepared, list[bytes | None]], Awaitable[Rows]]
Together = Callable[[list[Write]], Awaitable[list[Rows]]]


class Group:
    """The lanes and the queue of one event loop. `most_lanes` are the connections that it may take."""

    def __init__(self, alone: Alone, together: Together, most_lanes: int) -> None:
        self._alone = alone
        self._together = together
        self._most_lanes = most_lanes
        # Each lane that is at work, and since when it has been at this piece of it.
        self._lanes: dict[object, float] = {}
        self._waiting: deque[Write] = deque()
        # Whose writes are in the lanes' batches, and how many of each.
        self._busy: Counter[tuple[str, str]] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def run(self, request: Any, statement: Prepared, values: list[bytes | None]) -> Rows:
        """The rows of one write, when it is committed."""
        loop = self._checked()
        if not self._waiting and not self._full(loop.time()):
            lane = object()
            self._lanes[lane] = loop.time()
            try:
                return await self._alone(request, statement, values)
            finally:
                self._left(lane)
        write = Write(request, statement, values, loop.create_future())
        self._waiting.append(write)
        if self._looking is None:
            self._looking = loop.call_later(PATIENCE, self._look)
        return await write.answer

    async def close(self) -> None:
        """Take no more, and wait for the lanes; what still waits behind others is answered as the pool is closed."""
        self._closed = True
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    def _checked(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise LifecycleError("this manager is closed")
        if self._loop is not loop:
            if self._loop is not None:
                raise LifecycleError("this manager belongs to the event loop that used it first: open one in each")
            self._loop = loop
        return loop

    def _full(self, now: float) -> bool:
        """Whether there are lanes enough; those that have been at it for long may be held up, and do not count."""
        if len(self._lanes) >= self._most_lanes:
            return True
        return sum(now - since < PATIENCE for since in self._lanes.values()) >= LANES

    def _left(self, lane: object) -> None:
        del self._lanes[lane]
        if self._waiting and not self._full(asyncio.get_running_loop().time()):
            self._open()

    def _look(self) -> None:
        """Open one more lane where those there are held up, for as long as somebody waits."""
        self._looking = None
        if self._waiting:
            loop = asyncio.get_running_loop()
            if not self._full(loop.time()):
                self._open()
            self._looking = loop.call_later(PATIENCE, self._look)

    def _open(self) -> None:
        lane = object()
        self._lanes[lane] = asyncio.get_running_loop().time()
        # Not at the end of the coroutine: one that is cancelled before its first step has none.
        self._spawn(self._serve(lane)).add_done_callback(lambda _: self._left(lane))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _serve(self, lane: object) -> None:
        """Be a lane for as long as somebody waits, and it is needed."""
        loop = asyncio.get_running_loop()
        while batch := self._taken():
            if len(batch) > 1:
                keys = Counter(write.key for write in batch)
                self._busy += keys
                try:
                    await self._commit(batch)
                finally:
                    self._busy -= keys
                # Those who were answered go on before the next batch is taken: what they write next may be in it.
                self._lanes[lane] = loop.time()
                await asyncio.sleep(0)
            else:
                await self._by_itself(batch[0])
            now = loop.time()
            self._lanes[lane] = now - PATIENCE
            if self._full(now):
                break
            self._lanes[lane] = now

    def _taken(self) -> list[Write]:
        """A lane's share of all that is in flight, so that the server has the one's while we see to the other's.

        A session's writes go together, and not while another lane is at some of them, as they would wait for each other;
        unless there is nothing else: whoever is held up does not hold up those behind him.
        """
        lanes = min(LANES, self._most_lanes)
        share = min(MOST, max(_FEW, -(-(len(self._waiting) + self._busy.total()) // lanes)))
        batch = self._gathered(share, self._busy) or self._gathered(share, {})
        batch.sort(key=lambda write: write.key)
        return batch

    def _gathered(self, share: int, busy: Container[tuple[str, str]]) -> list[Write]:
        """Take so many that wait, and what else their sessions have; the rest waits on in its order."""
        batch: list[Write] = []
        passed: list[Write] = []
        keys: set[tuple[str, str]] = set()
        size = 0
        while self._waiting and len(batch) < MOST:
            write = self._waiting[0]
            key = write.key
            if not write.answer.done():
                if key in busy or (len(batch) >= share and key not in keys):
                    passed.append(write)
                else:
                    size += write.size
                    if batch and size > MOST_BYTES:
                        break
                    keys.add(key)
                    batch.append(write)
            self._waiting.popleft()
        self._waiting.extendleft(reversed(passed))
        return batch

    async def _commit(self, batch: list[Write]) -> None:
        try:
            answers = await self._together(batch)
        except asyncio.CancelledError:
            for write in batch:
                write.interrupted()
            raise
        except NotCommitted:
            for write in batch:
                self._spawn(self._by_itself(write)).add_done_callback(write.interrupted)
        except Exception as error:  # noqa: BLE001 -- it is theirs who wait
            for write in batch:
                # Each its own: a traceback grows where an error is raised.
                own = copy.copy(error)
                own.__cause__ = error.__cause__
                write.fail(own)
        else:
            for write, rows in zip(batch, answers, strict=True):
                write.give(rows)

    async def _by_itself(self, write: Write) -> None:
        if write.answer.done():
            return
        try:
            rows = await self._alone(write.request, write.statement, write.values)
        except Exception as error:  # noqa: BLE001 -- it is his who waits
            write.fail(error)
        else:
            write.give(rows)
        finally:
            write.interrupted()
