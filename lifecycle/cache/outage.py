"""When the cache is passed over: it failed, and a thread tries it again after pauses that grow.

What should have been dropped meanwhile is owed: it is dropped before anybody here reads from the cache again.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Final

from lifecycle.cache.commands import EVERYTHING
from lifecycle.cache.links import CacheFailure, clock
from lifecycle.log import get_logger

log = get_logger("lifecycle.cache")

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 10.0
# After so long without a failure the pauses begin anew.
_STEADY: Final = 30.0
# So many drops are remembered; beyond, everything is dropped.
_MOST_OWED: Final = 10_000
# A try that is under way ends in less.
_LONGEST_CLOSE: Final = 10.0


class Pauses:
    """How long to wait before the next try: longer each time, until it has worked for a while."""

    def __init__(self) -> None:
        self._next = _FIRST_PAUSE
        self._failed = -_STEADY

    def after_failure(self) -> float:
        """Seconds to wait, after a failure now."""
        now = clock()
        if now - self._failed > _STEADY + self._next:
            self._next = _FIRST_PAUSE
        self._failed = now
        pause, self._next = self._next, min(_LONGEST_PAUSE, self._next * 2)
        return pause


class Outage:
    """Whether the cache is used, and what is owed to it. `repair` drops keys on a connection of its own."""

    def __init__(self, url: str, repair: Callable[[tuple[bytes, ...]], None]) -> None:
        self.url = url
        self._repair = repair
        self._changed = threading.Condition()
        self._owed: dict[bytes, None] = {}
        self._paying: dict[bytes, None] = {}
        self._later: list[tuple[float, tuple[bytes, ...]]] = []
        self._pauses = Pauses()
        self._since = self._retry_at = 0.0
        self._dropped = 0
        self._thread: threading.Thread | None = None
        self._closed = False
        self.over = True
        """Whether the cache is used; read without a lock."""

    def failed(self, failure: CacheFailure, owing: Iterable[bytes] = ()) -> None:
        """Pass the cache over from now on, until it answers again and what is owed is dropped."""
        with self._changed:
            self._owed.update(dict.fromkeys(owing))
            first, self.over = self.over, False
            if first:
                self._since = clock()
                self._dropped = 0
                self._retry_at = self._since + self._pauses.after_failure()
                self._wake()
        if first:
            log.warning("cache_unavailable", url=self.url, error=str(failure))

    def owe(self, keys: Iterable[bytes]) -> None:
        """Have keys dropped as soon as the cache can be reached."""
        with self._changed:
            self._owed.update(dict.fromkeys(keys))
            if len(self._owed) > _MOST_OWED:
                self._owed = {EVERYTHING: None}
            self._wake()

    def owe_later(self, keys: tuple[bytes, ...], seconds: float) -> None:
        """Have keys dropped once so many seconds have passed."""
        with self._changed:
            self._later.append((clock() + seconds, keys))
            if len(self._later) > _MOST_OWED:
                self._later = [(clock() + seconds, (EVERYTHING,))]
            self._wake()

    def close(self) -> None:
        """Stop trying, after one last try to drop what is owed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(_LONGEST_CLOSE)
        with self._changed:
            later = dict.fromkeys(key for _, keys in self._later for key in keys)
            owed = self._owed | self._paying | later
        if owed:
            try:
                self._repair(tuple(owed))
            except CacheFailure as failure:
                log.warning("cache_drops_lost", url=self.url, count=len(owed), error=str(failure))

    def _wake(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name="lifecycle-cache-repair", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (wait := self._wait()) != 0.0:
                    self._changed.wait(wait)
                if self._closed:
                    return
                now = clock()
                for at, keys in self._later:
                    if at <= now:
                        self._owed.update(dict.fromkeys(keys))
                self._later = [one for one in self._later if one[0] > now]
                # Taken out: what is owed anew while these are being dropped is dropped once more.
                self._paying, self._owed = self._owed, {}
            self._attend(self._paying)

    def _wait(self) -> float | None:
        """Seconds until there is something to do; None while there is nothing."""
        now = clock()
        if not self.over:
            return max(0.0, self._retry_at - now)
        if self._owed:
            return 0.0
        return max(0.0, min(at for at, _ in self._later) - now) if self._later else None

    def _attend(self, due: dict[bytes, None]) -> None:
        try:
            self._repair(tuple(due))
        except CacheFailure as failure:
            with self._changed:
                self._owed = due | self._owed
                self._paying = {}
                again = not self.over
                if again:
                    self._retry_at = clock() + self._pauses.after_failure()
            if not again:
                self.failed(failure)
            return
        with self._changed:
            self._paying = {}
            self._dropped += len(due)
            if self.over or self._owed:
                return  # or once more, at once: the time of the next try has come
            self.over = True
            seconds, dropped = clock() - self._since, self._dropped
        log.info("cache_recovered", url=self.url, seconds=round(seconds, 3), dropped=dropped)


class Fullness:
    """Whether the server takes entries: while it refuses them (it is full), what is there is read and dropped all the same."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._guard = threading.Lock()
        self._pauses = Pauses()
        self._refusing = threading.Event()
        self._since = self._retry_at = 0.0

    def may_fill(self) -> bool:
        """Whether to try to put something there; while it is refused, one caller at a time after each pause."""
        if not self._refusing.is_set():
            return True
        with self._guard:
            now = clock()
            if now < self._retry_at:
                return False
            self._retry_at = now + _LONGEST_PAUSE
            return True

    def refused(self, failure: CacheFailure) -> None:
        """Note that it did not take something."""
        with self._guard:
            first = not self._refusing.is_set()
            self._refusing.set()
            if first:
                self._since = clock()
            self._retry_at = clock() + self._pauses.after_failure()
        if first:
            log.warning("cache_full", url=self._url, error=str(failure))

    def took(self) -> None:
        """Note that it took an entry."""
        if not self._refusing.is_set():
            return
        with self._guard:
            first = self._refusing.is_set()
            self._refusing.clear()
            seconds = clock() - self._since
        if first:
            log.info("cache_has_room", url=self._url, seconds=round(seconds, 3))
