"""Empty databases in memory with a schema in place: each is migrated once in a process, then copied."""

import contextlib
import sqlite3
import threading
from typing import Any, Final

import sqlalchemy as sa

from lifecycle import migrate

_templates: Final[dict[tuple[str, bool], bytes]] = {}
_making: Final = threading.Lock()


def empty_database(engine: sa.Engine, revision: str | None, *, search_index: bool) -> sqlite3.Connection:
    """Make the one connection of an engine in memory, with the schema of a revision (None: without any)."""
    with engine.connect() as connection:
        target: Any = connection.connection.driver_connection
    if revision is not None:
        with contextlib.closing(sqlite3.connect(":memory:")) as copied:
            copied.deserialize(_template(revision, search_index=search_index))
            copied.backup(target)
    return target  # type: ignore[no-any-return]


def _template(revision: str, *, search_index: bool) -> bytes:
    with _making:
        made = _templates.get((revision, search_index))
        if made is None:
            made = _templates[revision, search_index] = _migrated(revision, search_index=search_index)
    return made


def _migrated(revision: str, *, search_index: bool) -> bytes:
    from lifecycle.search_index import index_connection

    engine = sa.create_engine(
        "sqlite+pysqlite://", connect_args={"isolation_level": None}, pool_reset_on_return=None,
        poolclass=sa.pool.StaticPool,
    )  # fmt: skip
    try:
        with engine.connect() as connection:
            migrate.upgrade_connection(connection, revision)
            if search_index:
                index_connection(connection)
            driver: Any = connection.connection.driver_connection
            return bytes(driver.serialize())
    finally:
        engine.dispose()
