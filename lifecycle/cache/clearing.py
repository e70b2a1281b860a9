"""For what changes a database behind its managers' backs: an import, a restored backup."""

from dataclasses import dataclass

from lifecycle.cache.cache import Cache
from lifecycle.cache.commands import EVERYTHING, drop
from lifecycle.cache.links import CONNECT_SECONDS, Budget, CacheFailure, clock
from lifecycle.errors import ConfigError, StorageUnavailable
from lifecycle.settings import Settings


@dataclass(frozen=True, slots=True)
class Health:
    """How the cache is: its URL without a password, the database's name in it, and seconds of a round trip."""

    url: str
    namespace: str
    round_trip: float


def clear(settings: Settings) -> Health:
    """Outdate every entry of this database, for every process at once. One that is being read is outdated too.

    Raises `ConfigError` where no cache is configured, `StorageUnavailable` when it cannot be reached.
    """
    return _asked(settings, EVERYTHING)


def check(settings: Settings) -> Health:
    """See whether the cache can be used. Raises as `clear` does."""
    return _asked(settings, b"probe")


def _asked(settings: Settings, key: bytes) -> Health:
    if settings.cache.url is None:
        raise ConfigError("cache.url", "no cache is configured")
    cache = Cache(settings)
    try:
        cache.link.give(cache.link.opened(clock() + CONNECT_SECONDS))
        began = clock()
        cache.link.ask(Budget(CONNECT_SECONDS), drop((key,)))
        return Health(cache.outage.url, cache.namespace, clock() - began)
    except CacheFailure as failure:
        raise StorageUnavailable(f"the cache {cache.outage.url} cannot be used: {failure}") from failure
    finally:
        cache.close()
