"""What the HTTP API keeps: its keys, the answers that a repeated request gets again, numbers over time, a secret.

Revision ID: 0002
Revises: 0001
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from lifecycle.models.types import Timestamp, key_text, long_text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TABLES = ("api_keys", "idempotency_keys", "session_samples", "service_secrets")
_OPTIONS = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_nopad_bin"))
}


def upgrade() -> None:
    """Create the tables."""
    _table(
        "api_keys",
        sa.Column("key_id", key_text(), nullable=False),
        sa.Column("tenant", key_text(), nullable=True),
        sa.Column("name", key_text(), nullable=False),
        sa.Column("scope", key_text(), nullable=False),
        sa.Column("digest", key_text(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("expires_at", Timestamp(), nullable=True),
        sa.Column("revoked_at", Timestamp(), nullable=True),
        sa.Column("last_used_at", Timestamp(), nullable=True),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_api_keys")),
    )
    _table(
        "idempotency_keys",
        sa.Column("tenant", key_text(), nullable=False),
        sa.Column("caller", key_text(), nullable=False),
        sa.Column("idempotency_key", key_text(), nullable=False),
        sa.Column("digest", key_text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("headers", long_text(), nullable=True),
        sa.Column("body", long_text(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("claimed_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "caller", "idempotency_key", name=op.f("pk_idempotency_keys")),
    )
    _index("ix_idempotency_keys_created_at", "idempotency_keys", "created_at")
    _table(
        "session_samples",
        sa.Column("tenant", key_text(), nullable=False),
        sa.Column("name", key_text(), nullable=False),
        sa.Column("sampled_at", Timestamp(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name", "sampled_at", name=op.f("pk_session_samples")),
    )
    _index("ix_session_samples_sampled_at", "session_samples", "sampled_at")
    _table(
        "service_secrets",
        sa.Column("name", key_text(), nullable=False),
        sa.Column("value", long_text(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_service_secrets")),
    )

    # What `list_stuck` reads: few have been rescued twice. MariaDB has no partial indexes: there it is a whole one.
    few = sa.text("rescues >= 2")
    op.create_index(
        "ix_sessions_rescued",
        "sessions",
        ["rescues"],
        if_not_exists=_repeatable(),
        postgresql_where=few,
        sqlite_where=few,
    )


def downgrade() -> None:
    """Drop the tables and the index."""
    op.drop_index("ix_sessions_rescued", "sessions", if_exists=True)
    for table in reversed(_TABLES):
        op.drop_table(table, if_exists=True)


def _repeatable() -> bool:
    # DDL commits by itself there, so an upgrade that was interrupted must be able to start again.
    return op.get_context().dialect.name in {"mysql", "mariadb"}


def _table(name: str, *columns: Any) -> None:
    op.create_table(name, *columns, if_not_exists=_repeatable(), **_OPTIONS)


def _index(name: str, table: str, *columns: str) -> None:
    op.create_index(name, table, columns, if_not_exists=_repeatable())
