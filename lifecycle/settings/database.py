"""Where sessions are stored."""

import re

from pydantic import ValidationInfo, field_validator

from lifecycle.settings.section import Section
from lifecycle.settings.values import Count, Seconds

_SCHEMES = ("sqlite", "jsonl", "postgresql", "mariadb", "mysql")


class DatabaseSettings(Section):
    """Where sessions are stored, and how long to wait for it."""

    url: str = "sqlite:///lifecycle.db"
    """An SQLAlchemy URL: sqlite, postgresql, mariadb or mysql; or jsonl, a directory of files for one process."""
    pool_size: Count = 8
    """Connections kept open per process."""
    connect_timeout: Seconds = 5
    """Seconds to wait for a connection."""
    statement_timeout: Seconds = 30
    """Seconds one statement may take."""
    search_timeout: Seconds = 5
    """Seconds a search may take."""
    allow_unsafe_durability: bool = False
    """Work on a database that may lose acknowledged writes when it crashes."""
    notify: bool = True
    """On PostgreSQL, wake who waits by NOTIFY, ahead of his next look."""
    pooler: bool = False
    """On PostgreSQL, whether a pooler gives each transaction another connection (pgbouncer's transaction mode)."""
    row_security: bool = False
    """On PostgreSQL, have row-level security back the tenant's filter (`lifecycle db row-security`)."""

    @field_validator("row_security")
    @classmethod
    def _has_rows(cls, on: bool, info: ValidationInfo) -> bool:
        if on and not str(info.data.get("url", "postgresql")).startswith("postgresql"):
            raise ValueError("must be false: only PostgreSQL has row-level security")
        return on

    @field_validator("url")
    @classmethod
    def _known_database(cls, url: str) -> str:
        scheme, separator, _ = url.partition("://")
        if not separator or scheme.partition("+")[0] not in _SCHEMES:
            raise ValueError(
                "must be a URL that starts with sqlite://, jsonl://, postgresql://, mariadb:// or mysql://"
            )
        if scheme == "jsonl" and not re.fullmatch(r"jsonl:///[^?#]+", url):
            raise ValueError(
                "jsonl:// takes a directory and nothing else, as in jsonl:///sessions (relative) or"
                " jsonl:////var/lib/sessions (absolute)"
            )
        return url
