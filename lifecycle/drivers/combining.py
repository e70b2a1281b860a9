"""Group commit for threads: writes that queue up while one is committed are committed together.

A thread that writes while nobody does goes at once and by itself. Those that come meanwhile queue up; when it is done,
the first of them commits its own and all others that wait, and each returns when that is done. The idea of one thread
combining what others published is that of Hendler, Incze, Shavit and Tzafrir, "Flat combining and the
synchronization-parallelism tradeoff" (2010).
"""

import copy
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from lifecycle.errors import StorageUnavailable

MOST: Final = 64
MOST_BYTES: Final = 1 << 20


class NotCommitted(Exception):
    """A batch was rolled back, whole; the cause is what one of its writes ran into. Each is tried by itself."""


@dataclass(slots=True, eq=False)
class Write:
    """A write, and once it was tried its answer or the error to raise where its caller waits."""

    work: Any
    value: Any = None
    error: Exception | None = None
    # Whether it can have been committed, and whether it is known what came of it.
    sent: bool = False
    tried: bool = False
    # That nothing was committed, and its own thread tries it.
    alone: bool = False
    _woken: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._woken.acquire()

    def wait(self, timeout: float = -1) -> bool:
        """Until `wake` is called, for `timeout` seconds at most; whether it was."""
        return self._woken.acquire(timeout=timeout)

    def wake(self) -> None:
        """Have `wait` return."""
        self._woken.release()

    def fail(self, error: Exception) -> None:
        """Have its caller raise an error, each a copy: a traceback grows where an error is raised."""
        self.error = copy.copy(error)
        self.error.__cause__ = error.__cause__
        self.tried = True

    def result(self) -> Any:
        """The answer. Raises what the write ran into."""
        if self.error is not None:
            raise self.error
        return self.value


class Group:
    """The queue of the threads that write to one database.

    `together` commits writes in one transaction and sets what came of each. It marks them as sent before that can have
    happened, and raises `NotCommitted` when it has not. `alone` does one piece of work. Behind a write that takes longer
    than `patience` seconds, as it waits for a lock, the next one does not wait. `size` gives the bytes of a piece of work.
    """

    def __init__(
        self,
        together: Callable[[list[Write]], None],
        alone: Callable[[Any], Any],
        patience: float | None = None,
        size: Callable[[Any], int] = lambda _: 0,
    ) -> None:
        self._together = together
        self._alone = alone
        self._patience = patience
        self._size = size
        # A signal handler that writes may find its own thread within.
        self._guard = threading.RLock()
        self._waiting: deque[Write] = deque()
        self._leader: Write | None = None
        self._thread = 0
        self._began = 0.0

    def run(self, work: Any) -> Any:
        """What comes of a piece of work, when it is committed."""
        if self._thread == threading.get_ident():
            return self._alone(work)  # a signal handler's, on top of the write that is being committed
        write = Write(work)
        try:
            if self._leads(write):
                self._lead(write)
            return self._alone(work) if write.alone else write.result()
        except BaseException:
            self._leave(write)
            raise

    def _leads(self, write: Write) -> bool:
        """Whether to commit now, after waiting for it if others are at it, or else to be done."""
        with self._guard:
            if self._leader is None:
                self._leader, self._began = write, time.monotonic()
                return True
            self._waiting.append(write)
        while not write.wait(-1 if self._patience is None else self._patience):
            with self._guard:
                held_up = time.monotonic() - self._began >= (self._patience or 0.0)
                if held_up and write in self._waiting:
                    self._waiting.remove(write)
                    self._leader, self._began = write, time.monotonic()
                    return True
        return not (write.tried or write.alone)

    def _lead(self, write: Write) -> None:
        batch = [write]
        try:
            self._thread = threading.get_ident()
            self._take(batch)
            if len(batch) > 1:
                self._commit(batch)
            else:
                write.value = self._alone(write.work)
        finally:
            try:
                for other in batch[1:]:
                    _settle(other)
            finally:
                self._hand_on(write)

    def _take(self, batch: list[Write]) -> None:
        """Add what waits, up to a number and a size."""
        with self._guard:
            if not self._waiting:
                return
            room = MOST_BYTES - self._size(batch[0].work)
            while self._waiting and len(batch) < MOST:
                first = self._waiting[0]
                room -= self._size(first.work)
                if room < 0:
                    return
                # In this order: who is interrupted in between leaves nobody out.
                if not (first.tried or first.alone):
                    batch.append(first)
                self._waiting.popleft()

    def _commit(self, batch: list[Write]) -> None:
        try:
            self._together(batch)
        except NotCommitted:
            for write in batch:
                write.sent = write.tried = False
                write.alone = True
        except Exception as error:  # noqa: BLE001 -- it is raised where each of them waits
            for write in batch:
                if not write.tried:
                    write.fail(error)

    def _hand_on(self, leader: Write) -> None:
        with self._guard:
            if self._leader is not leader:
                return  # somebody did not wait for this one
            self._thread = 0
            while self._waiting and (self._waiting[0].tried or self._waiting[0].alone):
                self._waiting.popleft()
            if not self._waiting:
                self._leader = None
                return
            self._leader, self._began = self._waiting.popleft(), time.monotonic()
            self._leader.wake()

    def _leave(self, write: Write) -> None:
        """The thread was interrupted: what waits is not tried any more, and a turn goes to the next."""
        with self._guard:
            if write in self._waiting:
                self._waiting.remove(write)
            elif self._leader is write:
                self._hand_on(write)


def _settle(write: Write) -> None:
    """Wake the thread of a write that was in a batch; what an interrupt left open is tried by itself if it can be."""
    if not write.tried:
        if write.sent:
            problem = "the thread that committed this write along with its own was interrupted"
            write.fail(StorageUnavailable(problem, outcome_unknown=True))
        else:
            write.alone = True
    write.wake()
