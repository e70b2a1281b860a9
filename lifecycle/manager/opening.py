"""What opening a manager of either kind takes."""

import importlib.util
from typing import Any

from lifecycle import urls
from lifecycle.errors import ConfigError
from lifecycle.operations.context import Context
from lifecycle.settings import Settings


def settings_for(url: str | Settings) -> Settings:
    """Complete settings for a URL; settings as they are."""
    return url if isinstance(url, Settings) else Settings(database={"url": url})


def behind_cache(driver: Any, settings: Settings, *, asynchronous: bool) -> Any:
    """The driver behind the cache that the settings name; itself where there is none, or nothing that it could spare.

    A database in memory and a directory of JSONL files are one process's, and as quick to ask as a cache.
    """
    url = settings.database.url
    if settings.cache.url is None or urls.is_memory(url) or urls.dialect_name(url) == urls.JSONL:
        return driver
    from lifecycle.cache.driver import AsyncCachedDriver, CachedDriver

    return AsyncCachedDriver(driver, settings) if asynchronous else CachedDriver(driver, settings)


def scoped(driver: Any, context: Context, *, asynchronous: bool) -> Any:
    """The driver as a manager has it: under row-level security it sends along whose sessions the manager is for."""
    if not context.settings.database.row_security:
        return driver
    from lifecycle.drivers.postgresql_scope import AsyncScopedDriver, ScopedDriver

    shared = driver.inner if isinstance(driver, ScopedDriver) else driver
    return (AsyncScopedDriver if asynchronous else ScopedDriver)(shared, context.scope)


def require_postgres() -> None:
    """Say what to install where psycopg is missing."""
    if importlib.util.find_spec("psycopg") is None or importlib.util.find_spec("psycopg_pool") is None:
        raise ConfigError("database.url", "PostgreSQL needs psycopg: pip install 'session-lifecycle[postgres]'")
