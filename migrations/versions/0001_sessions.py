"""The first schema: sessions, what belongs to them, and the workers that look after them.

A migration is history: nothing here follows the code as it changes, the names of the states least of all.

Revision ID: 0001
Revises:
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

from lifecycle.models.types import Timestamp, key_text, long_text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = (
    "sessions",
    "session_states",
    "session_checkpoints",
    "session_messages",
    "session_transitions",
    "session_approvals",
    "session_connections",
    "session_tokens",
    "workers",
    "worker_jobs",
)
_OPTIONS = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_nopad_bin"))
}


def upgrade() -> None:
    """Create every table and index, and the search index of the titles where the database can have one."""
    _create_sessions()
    _create_children()
    _create_workers()
    if _dialect() == "postgresql":
        _index_titles_on_postgresql()
    elif _dialect() == "sqlite":
        _index_titles_on_sqlite()


def downgrade() -> None:
    """Drop every table. The extension pg_trgm stays: others may use it."""
    if _dialect() == "sqlite":
        # The triggers go with the tables. What belongs to messages is there if the search index was turned on.
        op.execute("DROP TABLE IF EXISTS sessions_title_fts")
        op.execute("DROP VIEW IF EXISTS sessions_titled")
        op.execute("DROP TABLE IF EXISTS session_messages_fts")
        op.execute("DROP VIEW IF EXISTS session_messages_searched")
    for table in reversed(_TABLES):
        op.drop_table(table, if_exists=_repeatable())


def _index_titles_on_postgresql() -> None:
    # The block is a savepoint: without the extension, or the right to create it, titles are searched by scan.
    op.execute(
        """
        DO $$
        BEGIN
            CREATE EXTENSION IF NOT EXISTS pg_trgm;
            CREATE INDEX ix_sessions_title_trgm ON sessions USING gin (title_folded gin_trgm_ops);
        EXCEPTION WHEN OTHERS THEN
            RAISE NOTICE 'no trigram index on titles';
        END
        $$
        """
    )


def _index_titles_on_sqlite() -> None:
    # The index holds no copy of the titles: it reads them from the table, by rowid.
    op.execute(
        "CREATE VIEW sessions_titled AS SELECT rowid AS id, title_folded FROM sessions WHERE title_folded IS NOT NULL"
    )
    op.execute(
        "CREATE VIRTUAL TABLE sessions_title_fts"
        " USING fts5(title_folded, content='sessions_titled', content_rowid='id', tokenize='trigram')"
    )
    add = "INSERT INTO sessions_title_fts (rowid, title_folded) SELECT new.rowid, new.title_folded"
    remove = (
        "INSERT INTO sessions_title_fts (sessions_title_fts, rowid, title_folded)"
        " SELECT 'delete', old.rowid, old.title_folded"
    )
    op.execute(
        "CREATE TRIGGER sessions_title_fts_insert AFTER INSERT ON sessions"
        f" WHEN new.title_folded IS NOT NULL BEGIN {add}; END"
    )
    op.execute(
        "CREATE TRIGGER sessions_title_fts_delete AFTER DELETE ON sessions"
        f" WHEN old.title_folded IS NOT NULL BEGIN {remove}; END"
    )
    op.execute(
        "CREATE TRIGGER sessions_title_fts_update AFTER UPDATE OF title_folded ON sessions"
        " WHEN old.title_folded IS NOT new.title_folded BEGIN"
        f" {remove} WHERE old.title_folded IS NOT NULL;"
        f" {add} WHERE new.title_folded IS NOT NULL; END"
    )


def _dialect() -> str:
    return op.get_context().dialect.name


def _repeatable() -> bool:
    # MariaDB commits every DDL statement: what an interrupted migration left behind is not in the way of the next.
    return _dialect() in {"mysql", "mariadb"}


def _table(name: str, *parts: sa.schema.SchemaItem, **options: Any) -> None:
    op.create_table(name, *parts, if_not_exists=_repeatable(), **_OPTIONS, **options)


def _index(name: str, table: str, columns: Sequence[str], *, where: str | None = None, unique: bool = False) -> None:
    # MariaDB has no partial indexes: there it is a whole one.
    partial: dict[str, Any] = (
        {} if where is None else {"postgresql_where": sa.text(where), "sqlite_where": sa.text(where)}
    )
    op.create_index(name, table, columns, unique=unique, if_not_exists=_repeatable(), **partial)


def _create_sessions() -> None:
    _table(
        "sessions",
        sa.Column("tenant", key_text(), nullable=False),
        sa.Column("session_id", key_text(), nullable=False),
        sa.Column("kind", key_text(), nullable=False),
        sa.Column("user_id", key_text(), nullable=True),
        sa.Column("agent_id", key_text(), nullable=True),
        sa.Column("parent_id", key_text(), nullable=True),
        sa.Column("title", long_text(), nullable=True),
        sa.Column("title_folded", long_text(), nullable=True),
        sa.Column("state", key_text(), nullable=False),
        sa.Column("reason", long_text(), nullable=True),
        sa.Column("metadata", long_text(), nullable=False),
        sa.Column("config", long_text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("phase", long_text(), nullable=True),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("next_seq", sa.BigInteger(), nullable=False),
        sa.Column("message_count", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("last_message_at", Timestamp(), nullable=True),
        sa.Column("protected", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("updated_at", Timestamp(), nullable=False),
        sa.Column("listed_at", Timestamp(), nullable=False),
        sa.Column("last_active_at", Timestamp(), nullable=False),
        sa.Column("idle_active", sa.BigInteger(), nullable=True),
        sa.Column("idle_suspended", sa.BigInteger(), nullable=True),
        sa.Column("idle_override", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("ghost_at", Timestamp(), nullable=True),
        sa.Column("max_age_at", Timestamp(), nullable=True),
        sa.Column("expires_at", Timestamp(), nullable=True),
        sa.Column("ended_at", Timestamp(), nullable=True),
        sa.Column("prune_at", Timestamp(), nullable=True),
        sa.Column("deleted_at", Timestamp(), nullable=True),
        sa.Column("lease_holder", key_text(), nullable=True),
        sa.Column("lease_epoch", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("lease_expires_at", Timestamp(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("rescues", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("claimed_version", sa.BigInteger(), nullable=True),
        sa.Column("runs", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("available_at", Timestamp(), nullable=True),
        sa.Column("pending_approvals", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.PrimaryKeyConstraint("tenant", "session_id", name=op.f("pk_sessions")),
        sa.CheckConstraint(
            "state IN ('active', 'suspended', 'completed', 'ended', 'expired')", name=op.f("ck_sessions_state")
        ),
        sa.CheckConstraint(
            "(state IN ('completed', 'ended', 'expired')) = (ended_at IS NOT NULL)", name=op.f("ck_sessions_ended_at")
        ),
        sa.CheckConstraint("message_count >= 0 AND next_seq >= 1 AND version >= 1", name=op.f("ck_sessions_counts")),
        # Room on each page for heap-only updates.
        postgresql_with={"fillfactor": 70},
    )
    _index("ix_sessions_agent", "sessions", ["tenant", "agent_id", "listed_at"], where="agent_id IS NOT NULL")
    _index("ix_sessions_children", "sessions", ["tenant", "parent_id"], where="parent_id IS NOT NULL")
    _index("ix_sessions_claimable", "sessions", ["available_at"], where="available_at IS NOT NULL")
    _index("ix_sessions_deleted", "sessions", ["deleted_at"], where="deleted_at IS NOT NULL")
    _index(
        "ix_sessions_due",
        "sessions",
        ["expires_at"],
        where="state IN ('active', 'suspended') AND NOT protected AND expires_at IS NOT NULL",
    )
    _index("ix_sessions_ended", "sessions", ["ended_at"], where="ended_at IS NOT NULL AND NOT protected")
    _index("ix_sessions_finished", "sessions", ["prune_at"], where="prune_at IS NOT NULL AND NOT protected")
    _index("ix_sessions_ghosts", "sessions", ["ghost_at"], where="ghost_at IS NOT NULL")
    _index("ix_sessions_kind", "sessions", ["tenant", "kind", "listed_at"])
    _index("ix_sessions_lease_holder", "sessions", ["lease_holder"], where="lease_holder IS NOT NULL")
    _index("ix_sessions_listed", "sessions", ["tenant", "listed_at"])
    _index("ix_sessions_state", "sessions", ["tenant", "state", "listed_at"])
    _index("ix_sessions_user", "sessions", ["tenant", "user_id", "listed_at"], where="user_id IS NOT NULL")


def _create_children() -> None:
    _table(
        "session_states",
        sa.Column("tenant", key_text(), nullable=False),
        sa.Column("session_id", key_text(), nullable=False),
        sa.Column("conversation", long_text(), nullable=True),
        sa.Column("context", long_text(), nullable=True),
        sa.Column("plan", long_text(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("saved_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "session_id", name=op.f("pk_session_states")),
    )

    _table(
        "session_checkpoints",
        sa.Column("tenant", key_text(), nullable=False),
        sa.Column("session_id", key_text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("label", key_text(), nullable=False),
        sa.Column("data", long_text(), nullable=True),
        sa.Column("conversation", long_text(), nullable=True),
        sa.Column("context", long_text(), nullable=True),
        sa.Column("plan", long_text(), nullable=True),
        sa.Column("phase", long_text(), nullable=True),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "session_id", "seq", name=op.f("pk_session_checkpoints")),
    )

    _table(
        "session_messages",
        sa.Column("tenant", key_text(), nullable=False),
        sa.Column("session_id", key_text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("message_id", key_text(), nullable=False),
        sa.Column("role", key_text(), nullable=False),
        sa.Column("content", long_text(), nullable=False),
        sa.Column("encoding", key_text(), nullable=False),
        sa.Column("content_folded", long_text(), nullable=True),
        sa.Column("agent_id", key_text(), nullable=True),
        sa.Column("metadata", long_text(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "session_id", "seq", name=op.f("pk_session_messages")),
    )
    _index("uq_session_messages_message_id", "session_messages", ["tenant", "session_id", "message_id"], unique=True)

    _table(
        "session_transitions",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(),
            nullable=False,
            autoincrement=True,
        ),
        sa.Column("tenant", key_text(), nullable=False),
        sa.Column("session_id", key_text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("trigger_name", key_text(), nullable=False),
        sa.Column("from_state", key_text(), nullable=True),
        sa.Column("to_state", key_text(), nullable=True),
        sa.Column("reason", long_text(), nullable=True),
        sa.Column("actor", key_text(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("txid", sa.BigInteger(), nullable=True),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_session_transitions")),
        sqlite_autoincrement=True,
    )
    _index("ix_session_transitions_session", "session_transitions", ["tenant", "session_id", "id"])
    _index("ix_session_transitions_tombstones", "session_transitions", ["created_at"], where="to_state IS NULL")
    _index("ix_session_transitions_txid", "session_transitions", ["txid", "id"])

    _table(
        "session_approvals",
        sa.Column("tenant", key_text(), nullable=False),
        sa.Column("session_id", key_text(), nullable=False),
        sa.Column("approval_id", key_text(), nullable=False),
        sa.Column("action", long_text(), nullable=False),
        sa.Column("details", long_text(), nullable=True),
        sa.Column("state", key_text(), nullable=False),
        sa.Column("requested_by", key_text(), nullable=True),
        sa.Column("requested_at", Timestamp(), nullable=False),
        sa.Column("expires_at", Timestamp(), nullable=True),
        sa.Column("resolved_by", key_text(), nullable=True),
        sa.Column("resolved_at", Timestamp(), nullable=True),
        sa.Column("note", long_text(), nullable=True),
        sa.Column("suspended", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.PrimaryKeyConstraint("tenant", "session_id", "approval_id", name=op.f("pk_session_approvals")),
        sa.CheckConstraint(
            "state IN ('pending', 'approved', 'rejected', 'expired')", name=op.f("ck_session_approvals_state")
        ),
    )
    _index("ix_session_approvals_pending", "session_approvals", ["expires_at"], where="state = 'pending'")

    _table(
        "session_connections",
        sa.Column("tenant", key_text(), nullable=False),
        sa.Column("session_id", key_text(), nullable=False),
        sa.Column("connection_id", key_text(), nullable=False),
        sa.Column("client", long_text(), nullable=True),
        sa.Column("opened_at", Timestamp(), nullable=False),
        sa.Column("beat_at", Timestamp(), nullable=False),
        sa.Column("silent_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "session_id", "connection_id", name=op.f("pk_session_connections")),
    )
    _index("ix_session_connections_silent", "session_connections", ["silent_at"])

    _table(
        "session_tokens",
        sa.Column("tenant", key_text(), nullable=False),
        sa.Column("session_id", key_text(), nullable=False),
        sa.Column("token", key_text(), nullable=False),
        sa.Column("digest", key_text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "session_id", "token", name=op.f("pk_session_tokens")),
    )
    _index("ix_session_tokens_created_at", "session_tokens", ["created_at"])


def _create_workers() -> None:
    _table(
        "workers",
        sa.Column("worker_id", key_text(), nullable=False),
        sa.Column("host", key_text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("release_name", key_text(), nullable=False),
        sa.Column("state", key_text(), nullable=False),
        sa.Column("started_at", Timestamp(), nullable=False),
        sa.Column("beat_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("worker_id", name=op.f("pk_workers")),
    )

    _table(
        "worker_jobs",
        sa.Column("job", key_text(), nullable=False),
        sa.Column("slice_no", sa.Integer(), nullable=False),
        sa.Column("holder", key_text(), nullable=True),
        sa.Column("term", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("lease_expires_at", Timestamp(), nullable=True),
        sa.Column("last_started_at", Timestamp(), nullable=True),
        sa.Column("last_finished_at", Timestamp(), nullable=True),
        sa.Column("last_result", long_text(), nullable=True),
        sa.Column("last_error", long_text(), nullable=True),
        sa.PrimaryKeyConstraint("job", "slice_no", name=op.f("pk_worker_jobs")),
    )
