"""The optional search index on the content of messages: what it costs is disk and work with every message.

Without it a search reads the messages themselves, for as long as it may.
"""

import time
from typing import Any, Final

import sqlalchemy as sa

from lifecycle import migrate
from lifecycle.errors import InvalidArgument
from lifecycle.migrate import CONTENT_INDEX, CONTENT_TABLE
from lifecycle.urls import dialect_name

SEARCHED_VIEW: Final = "session_messages_searched"
"""On SQLite, what the index reads: `id` is the message's rowid, `content` the text as it is searched."""

_LOCK_KEY: Final = 0x4C696665_49647873

_COST: Final = {
    "postgresql": (
        "every message added, changed or removed updates the index too; sessions could be written while it was built"
    ),
    "sqlite": "every message added, changed or removed updates the index too; writers waited while it was built",
    "jsonl": "every message added, changed or removed updates the index too, and it is built anew at each opening",
}
_NO_COST: Final = "searches of messages read the messages themselves, within database.search_timeout"

# What is searched is the folded content, or the content itself where folding changes no more than ASCII's case, to
# which the trigram tokenizer is blind.
_FOLDED: Final = "coalesce({0}.content_folded, {0}.content)"
_ADD: Final = f"INSERT INTO {CONTENT_TABLE} (rowid, content) VALUES (new.rowid, {_FOLDED.format('new')});"
_REMOVE: Final = (
    f"INSERT INTO {CONTENT_TABLE} ({CONTENT_TABLE}, rowid, content)"
    f" VALUES ('delete', old.rowid, {_FOLDED.format('old')});"
)
_TRIGGERS: Final = {
    f"{CONTENT_TABLE}_insert": f"AFTER INSERT ON session_messages BEGIN {_ADD} END",
    f"{CONTENT_TABLE}_delete": f"AFTER DELETE ON session_messages BEGIN {_REMOVE} END",
    f"{CONTENT_TABLE}_update": (
        f"AFTER UPDATE OF content, content_folded ON session_messages BEGIN {_REMOVE} {_ADD} END"
    ),
}
_SQLITE_ON: Final = (
    f"CREATE VIEW {SEARCHED_VIEW} AS SELECT rowid AS id, {_FOLDED.format('m')} AS content FROM session_messages AS m",
    (
        f"CREATE VIRTUAL TABLE {CONTENT_TABLE}"
        f" USING fts5(content, content='{SEARCHED_VIEW}', content_rowid='id', tokenize='trigram')"
    ),
    *(f"CREATE TRIGGER {name} {rest}" for name, rest in _TRIGGERS.items()),
    f"INSERT INTO {CONTENT_TABLE} ({CONTENT_TABLE}) VALUES ('rebuild')",
)
_SQLITE_OFF: Final = (
    *(f"DROP TRIGGER IF EXISTS {name}" for name in _TRIGGERS),
    f"DROP TABLE IF EXISTS {CONTENT_TABLE}",
    f"DROP VIEW IF EXISTS {SEARCHED_VIEW}",
)


def set_search_index(url: str, on: bool) -> dict[str, Any]:
    """Build or drop the search index on messages, and report its size in bytes, the seconds taken, and what it costs.

    What is already so stays as it is. On PostgreSQL nobody waits for it. Raises InvalidArgument on MariaDB, which has
    no such index, and SchemaOutdated when the database is not at this release.
    """
    kind = _supported(url)
    migrate.check(url)
    began = time.monotonic()
    with migrate.connected(url, autocommit=True) as connection:
        changed = (_set_on_postgresql if kind == "postgresql" else _set_on_sqlite)(connection, on=on)
        size = _size(connection, kind) if on else 0
    return {
        "database": kind,
        "index": CONTENT_INDEX if kind == "postgresql" else CONTENT_TABLE,
        "on": on,
        "changed": changed,
        "bytes": size,
        "seconds": round(time.monotonic() - began, 3),
        "cost": _COST[kind] if on else _NO_COST,
    }


def has_search_index(url: str) -> bool:
    """Say whether the search index on messages is there and whole; never on MariaDB, and not in memory."""
    kind = dialect_name(url)
    if kind == "mariadb" or migrate.current(url) is None:
        return False
    with migrate.connected(url, autocommit=True) as connection:
        return (_is_on_postgresql if kind == "postgresql" else _is_on_sqlite)(connection)


def index_connection(connection: sa.Connection) -> None:
    """Build the index in the SQLite database of an open connection, as one in memory needs it."""
    _set_on_sqlite(connection, on=True)


def _supported(url: str) -> str:
    kind = dialect_name(url)
    if kind == "mariadb":
        raise InvalidArgument(
            "search index: MariaDB has no trigram index; messages are searched there by a scan that is bounded by"
            " database.search_timeout"
        )
    return kind


def _set_on_sqlite(connection: sa.Connection, *, on: bool) -> bool:
    with migrate.transaction(connection):
        if _is_on_sqlite(connection) == on:
            return False
        for statement in (*_SQLITE_OFF, *(_SQLITE_ON if on else ())):
            connection.exec_driver_sql(statement)
    return True


def _set_on_postgresql(connection: sa.Connection, *, on: bool) -> bool:
    # Somebody else's index that is being built looks just like an invalid leftover. Released with the connection.
    lock = sa.select(sa.func.pg_try_advisory_lock(_LOCK_KEY))
    migrate.wait_for_lock(lambda: bool(connection.scalar(lock)))
    if _is_on_postgresql(connection) == on and (on or not _exists_on_postgresql(connection)):
        return False
    connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {CONTENT_INDEX}")
    if on:
        _require_trigrams(connection)
        connection.exec_driver_sql(
            f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {CONTENT_INDEX} ON session_messages"
            ' USING gin ((coalesce(content_folded, lower(content COLLATE "C"))) gin_trgm_ops)'
        )
    return True


def _require_trigrams(connection: sa.Connection) -> None:
    try:
        connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    except sa.exc.DBAPIError as error:
        raise InvalidArgument(
            f"search index: needs PostgreSQL's extension pg_trgm, which this user cannot create ({error.orig});"
            " have an administrator run: CREATE EXTENSION pg_trgm"
        ) from error.orig


def _is_on_sqlite(connection: sa.Connection) -> bool:
    parts = (CONTENT_TABLE, SEARCHED_VIEW, *_TRIGGERS)
    names = ", ".join(f"'{part}'" for part in parts)
    found = connection.exec_driver_sql(f"SELECT count(*) FROM sqlite_master WHERE name IN ({names})")
    return bool(found.scalar_one() == len(parts))


def _exists_on_postgresql(connection: sa.Connection) -> bool:
    return connection.exec_driver_sql(f"SELECT to_regclass('{CONTENT_INDEX}')").scalar_one() is not None


def _is_on_postgresql(connection: sa.Connection) -> bool:
    found = connection.exec_driver_sql(
        f"SELECT indisvalid AND indisready FROM pg_index WHERE indexrelid = to_regclass('{CONTENT_INDEX}')"
    )
    return bool(found.scalar_one_or_none())


def _size(connection: sa.Connection, kind: str) -> int:
    if kind == "postgresql":
        found = connection.exec_driver_sql(f"SELECT pg_relation_size(to_regclass('{CONTENT_INDEX}'))")
    else:
        found = connection.exec_driver_sql(
            f"SELECT (SELECT coalesce(sum(length(block)), 0) FROM {CONTENT_TABLE}_data)"
            f" + (SELECT coalesce(sum(length(sz)), 0) FROM {CONTENT_TABLE}_docsize)"
        )
    return int(found.scalar_one())
