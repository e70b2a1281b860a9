"""What both kinds of connection share: failures, time limits, and how one is made from the URL.

The client library's own client has timeouts for each step, and none for a name that does not resolve. Here a call has
one limit for all it does, so its connections are used directly.
"""

import contextlib
import hashlib
import importlib.util
import time
from typing import Any, Final

from lifecycle.errors import ConfigError
from lifecycle.log import mask_passwords
from lifecycle.settings.cache import CacheSettings

# What a connection may take to be made when nobody waits for it.
CONNECT_SECONDS: Final = 2.0
clock = time.monotonic


class CacheFailure(Exception):
    """The cache did not answer as it should; the message says what it did instead, without passwords."""


class CacheRefusal(CacheFailure):
    """The server is there, and refuses a command: out of memory, read-only, not permitted."""


class CacheBusy(CacheFailure):
    """All connections were in use for as long as could be waited: that says nothing about the server."""


class Budget:
    """What is left of the seconds that the cache may cost a call."""

    __slots__ = ("left",)

    def __init__(self, seconds: float) -> None:
        self.left = seconds


def parsed(settings: CacheSettings, *, asynchronous: bool) -> tuple[type[Any], dict[str, Any]]:
    """The class of a connection and its arguments. Raises `ConfigError` for a URL that makes none."""
    if importlib.util.find_spec("valkey") is None:
        raise ConfigError("cache.url", "a cache needs valkey-py: pip install 'session-lifecycle[valkey]'")
    if asynchronous:
        from valkey.asyncio import ConnectionPool as Pool
    else:
        from valkey import ConnectionPool as Pool  # type: ignore[assignment]
    problem = None
    try:
        pool: Any = Pool.from_url(settings.url or "")
        arguments = pool.connection_kwargs | {
            "client_name": "lifecycle",
            "lib_name": None,
            "lib_version": None,
            "decode_responses": False,
            # In which TLS is agreed on, too. Afterwards our socket has a time of its own; asyncio's whole call has.
            "socket_timeout": None if asynchronous else CONNECT_SECONDS,
            "socket_connect_timeout": CONNECT_SECONDS,
            "protocol": 2,
        }
        pool.connection_class(**arguments)
    except (ValueError, TypeError, AttributeError) as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - the library's own root, which is there only with the library
        problem = str(error)
    else:
        return pool.connection_class, arguments
    # Raised out here: what was raised may quote the URL and its password.
    raise ConfigError("cache.url", f"makes no connection: {mask_passwords(problem)}")


def prefix(namespace: str, info: Any) -> bytes:
    """What every key on a connection begins with, from what the server says of itself.

    The run of the server is part of it: after a restart, a fail-over or a restored dump nothing is believed that was
    put there before, as what was to be dropped since may have come back.
    """
    lines = bytes(info).split(b"\n") if isinstance(info, bytes) else ()
    for line in lines:
        name, _, value = line.strip().partition(b":")
        if name == b"run_id" and value:
            return b"lifecycle:" + namespace.encode() + b":" + value[:16] + b":"
    raise CacheFailure("the server does not tell its run_id: is it a Valkey or Redis server?")


def described(error: BaseException) -> str:
    """What a failure says, without passwords."""
    return mask_passwords(str(error) or type(error).__name__)


def namespace_of(settings: CacheSettings, database_url: str) -> str:
    """The name of the database among those that share the cache, alike in every process that writes its URL alike."""
    if settings.namespace is not None:
        # Its digest, as keys are split at colons by those who look at them.
        return hashlib.sha256(b"named:" + settings.namespace.encode()).hexdigest()[:16]
    return hashlib.sha256(_place(database_url).encode()).hexdigest()[:16]


def _place(database_url: str) -> str:
    from pathlib import Path

    from lifecycle import urls

    url = urls.engine_url(database_url)
    backend = urls.dialect_name(database_url)
    if backend == "sqlite":
        return f"sqlite:{Path(url.database or '').resolve()}"
    ports = {"postgresql": 5432, "mariadb": 3306}
    hosts = url.query.get("host") or url.query.get("unix_socket") or url.host or "localhost"
    return f"{backend}:{hosts}:{url.port or url.query.get('port') or ports[backend]}:{url.database}"


@contextlib.contextmanager
def spending(budget: Budget) -> Any:
    """Take what the block costs from the budget."""
    began = clock()
    try:
        yield
    finally:
        budget.left -= clock() - began
