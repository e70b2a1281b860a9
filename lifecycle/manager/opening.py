"""What opening a manager of either kind takes."""

import importlib.util

from lifecycle.errors import ConfigError
from lifecycle.settings import Settings


def settings_for(url: str | Settings) -> Settings:
    """Complete settings for a URL; settings as they are."""
    return url if isinstance(url, Settings) else Settings(database={"url": url})


def require_postgres() -> None:
    """Say what to install where psycopg is missing."""
    if importlib.util.find_spec("psycopg") is None or importlib.util.find_spec("psycopg_pool") is None:
        raise ConfigError("database.url", "PostgreSQL needs psycopg: pip install 'session-lifecycle[postgres]'")
