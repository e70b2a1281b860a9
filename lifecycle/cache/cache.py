"""One cache of a process: what its managers on one database share."""

import os
import threading
from dataclasses import dataclass
from typing import Any, Final

from lifecycle.cache.commands import drop
from lifecycle.cache.link import Link
from lifecycle.cache.links import CONNECT_SECONDS, Budget, clock, namespace_of
from lifecycle.cache.newest import Newest
from lifecycle.cache.outage import Fullness, Outage
from lifecycle.log import mask_passwords
from lifecycle.settings import Settings

# A statement that may still be at work is ended by the database when it has taken as long as it may.
_MARGIN: Final = 1.0
_AT_ONCE: Final = 500
_MOST_COLD: Final = 20_000


@dataclass(slots=True)
class Counts:
    """What became of reads and drops. Threads count without a lock: under load some are missed."""

    hits: int = 0
    """Reads that the cache answered."""
    misses: int = 0
    """Reads of what was not there, or was no longer to be believed."""
    rejected: int = 0
    """Misses of what was there: garbage, outdated by a sweep, or older than what this process has seen."""
    passed: int = 0
    """Reads that did not ask the cache, as it had failed."""
    fills: int = 0
    """Entries put there."""
    drops: int = 0
    """Writes whose entries were dropped."""
    failures: int = 0
    """Calls to the cache that failed."""
    longest: float = 0.0
    """Seconds that the cache cost the call it cost most."""


class Cache:
    """The connections, what is known of their server's health, and the newest versions seen here."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings.cache
        self.namespace = namespace_of(settings.cache, settings.database.url)
        self.link = Link(settings.cache, self.namespace)
        shown = mask_passwords(settings.cache.url or "")
        self.outage = Outage(shown, self._repair)
        self.fullness = Fullness(shown)
        self.newest = Newest()
        self.counts = Counts()
        self.users = 0
        # What was dropped from here and not read since: it is not there, most likely.
        self.cold: dict[bytes, None] = {}
        self._statement = settings.database.statement_timeout

    def uncertain(self, keys: tuple[bytes, ...]) -> None:
        """Drop what a write may have changed that may still be under way: now, and when it must be over."""
        self.outage.owe(keys)
        self.outage.owe_later(keys, self._statement + _MARGIN)

    def cost(self, budget: Budget) -> None:
        """Note what a call took of its budget."""
        spent = self.settings.timeout - budget.left
        self.counts.longest = max(self.counts.longest, spent)

    def cooled(self, keys: tuple[bytes, ...]) -> None:
        """Note keys that were dropped."""
        self.cold.update(dict.fromkeys(keys))
        if len(self.cold) > _MOST_COLD:
            self.cold = {}

    def close(self) -> None:
        """Drop what is owed, if that can be done now, and close the connections."""
        self.outage.close()
        self.link.close()

    def _repair(self, keys: tuple[bytes, ...]) -> None:
        """See whether the server is as quick as calls need it, then drop keys. Raises `CacheFailure`."""
        connection = self.link.opened(clock() + CONNECT_SECONDS)
        # Written, if only in form: a replica would be of no use.
        self.link.converse(connection, clock() + self.settings.timeout, drop((b"probe",)))
        for start in range(0, len(keys), _AT_ONCE):
            connection = self.link.take(clock() + CONNECT_SECONDS)
            self.link.converse(connection, clock() + CONNECT_SECONDS, drop(keys[start : start + _AT_ONCE]))


_shared: dict[tuple[Any, ...], Cache] = {}
_guard = threading.Lock()


def borrow(settings: Settings) -> Cache:
    """The process's cache for these settings; give it back with `release`. Raises `ConfigError`."""
    key = (os.getpid(), namespace_of(settings.cache, settings.database.url), *settings.cache.model_dump().items())
    with _guard:
        cache = _shared.get(key)
        if cache is None:
            cache = _shared[key] = Cache(settings)
        cache.users += 1
        return cache


def release(cache: Cache) -> None:
    """Give it back; the last user closes it."""
    with _guard:
        cache.users -= 1
        if cache.users:
            return
        for key in [key for key, shared in _shared.items() if shared is cache]:
            del _shared[key]
    cache.close()
