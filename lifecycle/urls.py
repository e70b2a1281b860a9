"""Database URLs: from the forms that users write to those that SQLAlchemy takes."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from lifecycle.errors import InvalidArgument

_DRIVERS: Final = {"sqlite": "pysqlite", "postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}


def engine_url(url: str) -> sa.URL:
    """Return the SQLAlchemy URL, driver included, for a sqlite, postgresql, mysql or mariadb URL.

    Whatever driver the URL names, it is ours that is used. Raises InvalidArgument for any other URL.
    """
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        # The URL is not quoted and not the cause: it may hold a password.
        raise InvalidArgument("url: must be a database URL such as sqlite:///file.db or postgresql://host/db") from None
    backend = parsed.get_backend_name()
    if backend not in _DRIVERS:
        raise InvalidArgument(
            f"url: must start with sqlite://, postgresql://, mariadb:// or mysql://; not {backend}://"
        )
    parsed = parsed.set(drivername=f"{backend}+{_DRIVERS[backend]}")
    if backend in {"mysql", "mariadb"}:
        parsed = parsed.update_query_dict({"charset": "utf8mb4"})
    return parsed


def dialect_name(url: str) -> str:
    """Return the kind of database: sqlite, postgresql or mariadb (which is also what mysql:// means)."""
    backend = engine_url(url).get_backend_name()
    return "mariadb" if backend == "mysql" else backend


def is_memory(url: str) -> bool:
    """Say whether the URL is that of a SQLite database that lives and dies with its connection."""
    parsed = engine_url(url)
    if parsed.get_backend_name() != "sqlite":
        return False
    name = parsed.database or ""
    return name in {"", ":memory:"} or ":memory:" in name or parsed.query.get("mode") == "memory"
