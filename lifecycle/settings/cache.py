"""A cache in front of the database, for reads by key."""

from typing import Annotated, Final

from pydantic import BeforeValidator, Field, field_validator

from lifecycle.settings.section import Section
from lifecycle.settings.values import Count, Seconds, no_bool

_SCHEMES: Final = ("valkey", "valkeys", "redis", "rediss", "unix")


class CacheSettings(Section):
    """A Valkey or Redis server that answers `get_session` and `load_state` in the database's place; none by default."""

    url: str | None = None
    """Where it is: valkey, redis, or valkeys and rediss for TLS, or unix for a socket."""
    namespace: Annotated[str | None, Field(min_length=1, max_length=255)] = None
    """A name for this database among those that share the server; without one it is made from the database's URL."""
    ttl: Seconds = 86_400
    """Seconds an entry is kept."""
    timeout: Annotated[float, BeforeValidator(no_bool), Field(gt=0, le=10, allow_inf_nan=False)] = 0.04
    """Seconds that the cache may cost one call, all in all."""
    max_bytes: Count = 1_048_576
    """Bytes of the largest entry: what is larger is read from the database."""
    pool_size: Count = 8
    """Connections per process, and per event loop."""

    @field_validator("url")
    @classmethod
    def _known_server(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(tuple(f"{scheme}://" for scheme in _SCHEMES)):
            raise ValueError("must be a URL that starts with valkey://, valkeys://, redis://, rediss:// or unix://")
        return url
