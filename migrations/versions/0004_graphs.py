"""What LangGraph's graphs keep: their checkpoints, the items of lists and the large values that they share.

Revision ID: 0004
Revises: 0003
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from lifecycle.models.types import Base64, key_text, long_text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TABLES = ("session_graph_checkpoints", "session_graph_items", "session_graph_values")
_RUNS = "ix_session_graph_checkpoints_run"
_OPTIONS = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_nopad_bin"))
}


def upgrade() -> None:
    """Create the tables."""
    _table(
        "session_graph_checkpoints",
        sa.Column("tenant", key_text(), nullable=False),
        sa.Column("session_id", key_text(), nullable=False),
        sa.Column("place", key_text(), nullable=False),
        sa.Column("run_id", key_text(), nullable=True),
        sa.Column("first_item", sa.BigInteger(), nullable=True),
        sa.Column("needs", long_text(), nullable=True),
        sa.Column("body", Base64(), nullable=True),
        sa.Column("writes", long_text(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "session_id", "place", name=op.f("pk_session_graph_checkpoints")),
    )
    where = sa.text("run_id IS NOT NULL")
    op.create_index(
        _RUNS,
        "session_graph_checkpoints",
        ["tenant", "run_id"],
        if_not_exists=_repeatable(),
        postgresql_where=where,
        sqlite_where=where,
    )
    _table(
        "session_graph_items",
        sa.Column("tenant", key_text(), nullable=False),
        sa.Column("session_id", key_text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("needs", long_text(), nullable=True),
        sa.Column("content", Base64(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "session_id", "number", name=op.f("pk_session_graph_items")),
        postgresql_with={"toast_tuple_target": 2704},
    )
    _table(
        "session_graph_values",
        sa.Column("tenant", key_text(), nullable=False),
        sa.Column("session_id", key_text(), nullable=False),
        sa.Column("name", key_text(), nullable=False),
        sa.Column("needs", long_text(), nullable=True),
        sa.Column("content", Base64(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "session_id", "name", name=op.f("pk_session_graph_values")),
        postgresql_with={"toast_tuple_target": 2704},
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in reversed(_TABLES):
        op.drop_table(table, if_exists=True)


def _repeatable() -> bool:
    # DDL commits by itself there, so an upgrade that was interrupted must be able to start again.
    return op.get_context().dialect.name in {"mysql", "mariadb"}


def _table(name: str, *columns: Any, **options: Any) -> None:
    op.create_table(name, *columns, if_not_exists=_repeatable(), **options, **_OPTIONS)
