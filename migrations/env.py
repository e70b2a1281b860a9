"""What Alembic runs to reach the database: `lifecycle.migrate` hands over the open connection, or a URL for SQL text."""

import sqlalchemy as sa
from alembic import context

from lifecycle.migrate import COMPARISON, VERSION_TABLE
from lifecycle.models.tables import metadata


def run() -> None:
    """Run the migrations in the transaction of the given connection, or print them for the given URL."""
    connection: sa.Connection | None = context.config.attributes.get("connection")
    if connection is None:
        url: sa.URL = context.config.attributes["url"]
        context.configure(
            dialect_name=url.get_backend_name(),
            literal_binds=True,
            # SQLite's DDL is as transactional as its data; Alembic believes that of pysqlite's defaults only.
            transactional_ddl=url.get_backend_name() in {"postgresql", "sqlite"},
            target_metadata=metadata,
            version_table=VERSION_TABLE,
        )
    else:
        context.configure(connection=connection, target_metadata=metadata, version_table=VERSION_TABLE, **COMPARISON)
    with context.begin_transaction():
        context.run_migrations()


run()
