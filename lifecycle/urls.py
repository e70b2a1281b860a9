"""Database URLs: from the forms that users write to those that SQLAlchemy takes."""

from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from lifecycle.errors import InvalidArgument

JSONL: Final = "jsonl"
"""The scheme of a directory of JSONL files."""

_DRIVERS: Final = {"sqlite": "pysqlite", "postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
_SCHEMES: Final = "must start with sqlite://, jsonl://, postgresql://, mariadb:// or mysql://"


def engine_url(url: str) -> sa.URL:
    """Return the SQLAlchemy URL, driver included, for a sqlite, postgresql, mysql or mariadb URL.

    Whatever driver the URL names, it is ours that is used. Raises InvalidArgument for any other URL, that of a
    directory of JSONL files too: it has no database that others could connect to.
    """
    parsed = _parsed(url)
    backend = parsed.get_backend_name()
    if backend not in _DRIVERS:
        raise InvalidArgument(f"url: {_SCHEMES}; not {backend}://")
    parsed = parsed.set(drivername=f"{backend}+{_DRIVERS[backend]}")
    if backend in {"mysql", "mariadb"}:
        parsed = parsed.update_query_dict({"charset": "utf8mb4"})
        if "unix_socket" in parsed.query and not any(name.startswith("ssl") for name in parsed.query):
            # Nothing leaves the machine; PyMySQL would read the certificates of all authorities for each connection.
            parsed = parsed.update_query_dict({"ssl_disabled": "true"})
    return parsed


def dialect_name(url: str) -> str:
    """Return the kind of database: sqlite, postgresql, mariadb (which is also what mysql:// means) or jsonl."""
    if jsonl_directory(url) is not None:
        return JSONL
    backend = engine_url(url).get_backend_name()
    return "mariadb" if backend == "mysql" else backend


def is_memory(url: str) -> bool:
    """Say whether the URL is that of a SQLite database that lives and dies with its connection."""
    parsed = _parsed(url)
    if parsed.get_backend_name() != "sqlite":
        return False
    name = parsed.database or ""
    return name in {"", ":memory:"} or ":memory:" in name or parsed.query.get("mode") == "memory"


def jsonl_directory(url: str) -> Path | None:
    """Return the directory of a jsonl URL, absolute, and None for the URL of a database.

    As with SQLite's files, `jsonl:///sessions` is relative and `jsonl:////var/lib/sessions` absolute. Raises
    InvalidArgument for a jsonl URL with anything but a directory.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() != JSONL:
        return None
    if not parsed.database or parsed.host or parsed.query or parsed.drivername != JSONL:
        raise InvalidArgument(
            "url: jsonl:// takes a directory and nothing else, as in jsonl:///sessions (relative) or"
            " jsonl:////var/lib/sessions (absolute)"
        )
    return Path(parsed.database).resolve()


def _parsed(url: str) -> sa.URL:
    try:
        return sa.make_url(url)
    except (ArgumentError, ValueError):
        # The URL is not quoted and not the cause: it may hold a password.
        raise InvalidArgument("url: must be a database URL such as sqlite:///file.db or postgresql://host/db") from None
