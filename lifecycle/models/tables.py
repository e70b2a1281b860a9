"""The tables, as SQLModel declares them. Every child table leads with the key of its session."""

from datetime import datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import CheckConstraint, Column, Index, PrimaryKeyConstraint, text
from sqlmodel import Field, SQLModel

from lifecycle import states
from lifecycle.models.types import Base64, Timestamp, key_text, long_text

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Under a mariadb:// URL the dialect reads its own prefix only.
_OPTIONS = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_nopad_bin"))
}


class Base(SQLModel):
    """What the tables share: one metadata, so that Alembic compares just ours."""

    metadata: ClassVar[sa.MetaData] = metadata


def _names(values: tuple[str, ...]) -> str:
    return ", ".join(f"'{value}'" for value in values)


def _col(kind: Any, *, null: bool = False, default: str | None = None) -> Any:
    server_default = None if default is None else text(default)
    return Field(sa_column=Column(kind, nullable=null, server_default=server_default))


def _partial(name: str, *columns: str, where: str) -> Index:
    # MariaDB has no partial indexes: there it is a whole one.
    return Index(name, *columns, postgresql_where=text(where), sqlite_where=text(where))


_LIVE = f"state IN ({_names(states.LIVE)})"


class SessionRow(Base, table=True):
    """One row a session: small and hot. No index holds a column that a beat or a save always changes."""

    __tablename__ = "sessions"

    tenant: str = _col(key_text())
    session_id: str = _col(key_text())
    kind: str = _col(key_text())
    user_id: str | None = _col(key_text(), null=True)
    agent_id: str | None = _col(key_text(), null=True)
    parent_id: str | None = _col(key_text(), null=True)
    title: str | None = _col(long_text(), null=True)
    title_folded: str | None = _col(long_text(), null=True)
    state: str = _col(key_text())
    reason: str | None = _col(long_text(), null=True)
    meta: str = Field(sa_column=Column("metadata", long_text(), nullable=False))
    config: str = _col(long_text())
    version: int = _col(sa.BigInteger())
    phase: str | None = _col(long_text(), null=True)
    step: int | None = _col(sa.BigInteger(), null=True)
    next_seq: int = _col(sa.BigInteger())
    message_count: int = _col(sa.BigInteger(), default="0")
    last_message_at: datetime | None = _col(Timestamp(), null=True)
    protected: bool = _col(sa.Boolean(create_constraint=False), default="false")
    created_at: datetime = _col(Timestamp())
    updated_at: datetime = _col(Timestamp())
    listed_at: datetime = _col(Timestamp())
    last_active_at: datetime = _col(Timestamp())
    idle_active: int | None = _col(sa.BigInteger(), null=True)
    idle_suspended: int | None = _col(sa.BigInteger(), null=True)
    idle_override: bool = _col(sa.Boolean(create_constraint=False), default="false")
    ghost_at: datetime | None = _col(Timestamp(), null=True)
    max_age_at: datetime | None = _col(Timestamp(), null=True)
    expires_at: datetime | None = _col(Timestamp(), null=True)
    ended_at: datetime | None = _col(Timestamp(), null=True)
    prune_at: datetime | None = _col(Timestamp(), null=True)
    deleted_at: datetime | None = _col(Timestamp(), null=True)
    lease_holder: str | None = _col(key_text(), null=True)
    lease_epoch: int = _col(sa.BigInteger(), default="0")
    lease_expires_at: datetime | None = _col(Timestamp(), null=True)
    attempts: int = _col(sa.Integer(), default="0")
    rescues: int = _col(sa.Integer(), default="0")
    # The version at the last claim: a later one tells that the run before got on.
    claimed_version: int | None = _col(sa.BigInteger(), null=True)
    # Whether runners work on it: what they suspended becomes available again when it is resumed.
    runs: bool = _col(sa.Boolean(create_constraint=False), default="false")
    available_at: datetime | None = _col(Timestamp(), null=True)
    pending_approvals: int = _col(sa.Integer(), default="0")
    # The last save; NULL where nothing was saved.
    saved_at: datetime | None = _col(Timestamp(), null=True)
    # Which entries the conversation is made of (see `lifecycle.entries`); `entries_from` is NULL where there is none.
    next_entry: int = _col(sa.BigInteger(), default="1")
    entries_from: int | None = _col(sa.BigInteger(), null=True)
    entries_before: str | None = _col(long_text(), null=True)
    # The version and the next entry at the last checkpoint: what was stored later is in none.
    checkpoint_version: int = _col(sa.BigInteger(), default="0")
    checkpoint_entry: int = _col(sa.BigInteger(), default="1")

    __table_args__ = (
        PrimaryKeyConstraint("tenant", "session_id"),
        CheckConstraint(f"state IN ({_names(states.STATES)})", name="state"),
        CheckConstraint(f"(state IN ({_names(states.TERMINAL)})) = (ended_at IS NOT NULL)", name="ended_at"),
        CheckConstraint("message_count >= 0 AND next_seq >= 1 AND version >= 1", name="counts"),
        _partial("ix_sessions_due", "expires_at", where=f"{_LIVE} AND NOT protected AND expires_at IS NOT NULL"),
        _partial("ix_sessions_finished", "prune_at", where="prune_at IS NOT NULL AND NOT protected"),
        _partial("ix_sessions_ended", "ended_at", where="ended_at IS NOT NULL AND NOT protected"),
        _partial("ix_sessions_ghosts", "ghost_at", where="ghost_at IS NOT NULL"),
        _partial("ix_sessions_claimable", "available_at", where="available_at IS NOT NULL"),
        _partial("ix_sessions_children", "tenant", "parent_id", where="parent_id IS NOT NULL"),
        _partial("ix_sessions_lease_holder", "lease_holder", where="lease_holder IS NOT NULL"),
        _partial("ix_sessions_rescued", "rescues", where="rescues >= 2"),
        _partial("ix_sessions_deleted", "deleted_at", where="deleted_at IS NOT NULL"),
        Index("ix_sessions_listed", "tenant", "listed_at"),
        Index("ix_sessions_state", "tenant", "state", "listed_at"),
        Index("ix_sessions_kind", "tenant", "kind", "listed_at"),
        _partial("ix_sessions_user", "tenant", "user_id", "listed_at", where="user_id IS NOT NULL"),
        _partial("ix_sessions_agent", "tenant", "agent_id", "listed_at", where="agent_id IS NOT NULL"),
        # Room on each page for heap-only updates.
        {**_OPTIONS, "postgresql_with": {"fillfactor": 70}},
    )


class StateRow(Base, table=True):
    """The documents of the saved state, one row a session: JSON as text, so that they come back as they were.

    A large one is a list of pieces instead, of which the large ones are in `session_values`.
    """

    __tablename__ = "session_states"

    tenant: str = _col(key_text())
    session_id: str = _col(key_text())
    context: str | None = _col(long_text(), null=True)
    plan: str | None = _col(long_text(), null=True)
    context_pieces: str | None = _col(long_text(), null=True)
    plan_pieces: str | None = _col(long_text(), null=True)

    __table_args__ = (PrimaryKeyConstraint("tenant", "session_id"), _OPTIONS)


class EntryRow(Base, table=True):
    """An entry of a conversation, which the saved state and checkpoints may share. It never changes."""

    __tablename__ = "session_entries"

    tenant: str = _col(key_text())
    session_id: str = _col(key_text())
    number: int = _col(sa.BigInteger())
    digest: str = _col(key_text())
    content: str = _col(long_text())

    __table_args__ = (
        PrimaryKeyConstraint("tenant", "session_id", "number"),
        # Three to a page: out of line, an entry of 2 KB would take two rows and as much room.
        {**_OPTIONS, "postgresql_with": {"toast_tuple_target": 2704}},
    )


class ValueRow(Base, table=True):
    """A large piece of a document, which the saved state and checkpoints may share. It never changes."""

    __tablename__ = "session_values"

    tenant: str = _col(key_text())
    session_id: str = _col(key_text())
    # The first letter of the document's name, and the digest.
    name: str = _col(key_text())
    # The session's version that brought it.
    version: int = _col(sa.BigInteger())
    content: str = _col(long_text())

    __table_args__ = (
        PrimaryKeyConstraint("tenant", "session_id", "name"),
        Index("ix_session_values_version", "tenant", "session_id", "version"),
        _OPTIONS,
    )


class CheckpointRow(Base, table=True):
    """A labelled copy of the saved state: of what it says, not of the entries and values that it says it with."""

    __tablename__ = "session_checkpoints"

    tenant: str = _col(key_text())
    session_id: str = _col(key_text())
    seq: int = _col(sa.BigInteger())
    label: str = _col(key_text())
    data: str | None = _col(long_text(), null=True)
    context: str | None = _col(long_text(), null=True)
    plan: str | None = _col(long_text(), null=True)
    phase: str | None = _col(long_text(), null=True)
    step: int | None = _col(sa.BigInteger(), null=True)
    version: int = _col(sa.BigInteger())
    created_at: datetime = _col(Timestamp())
    next_entry: int = _col(sa.BigInteger(), default="1")
    entries_from: int | None = _col(sa.BigInteger(), null=True)
    entries_before: str | None = _col(long_text(), null=True)
    context_pieces: str | None = _col(long_text(), null=True)
    plan_pieces: str | None = _col(long_text(), null=True)

    __table_args__ = (PrimaryKeyConstraint("tenant", "session_id", "seq"), _OPTIONS)


class MessageRow(Base, table=True):
    """One message. `encoding` is text, or json for content that is not a plain string."""

    __tablename__ = "session_messages"

    tenant: str = _col(key_text())
    session_id: str = _col(key_text())
    seq: int = _col(sa.BigInteger())
    message_id: str = _col(key_text())
    role: str = _col(key_text())
    content: str = _col(long_text())
    encoding: str = _col(key_text())
    # NULL where lower() of the content is already what case-folding gives; see `lifecycle.folding`.
    content_folded: str | None = _col(long_text(), null=True)
    agent_id: str | None = _col(key_text(), null=True)
    meta: str | None = Field(sa_column=Column("metadata", long_text(), nullable=True))
    created_at: datetime = _col(Timestamp())

    __table_args__ = (
        PrimaryKeyConstraint("tenant", "session_id", "seq"),
        Index("uq_session_messages_message_id", "tenant", "session_id", "message_id", unique=True),
        _OPTIONS,
    )


class TransitionRow(Base, table=True):
    """The audit log: every transition, and the creation and deletion of each session."""

    __tablename__ = "session_transitions"

    id: int | None = Field(
        default=None,
        sa_column=Column(
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(), primary_key=True, autoincrement=True
        ),
    )
    tenant: str = _col(key_text())
    session_id: str = _col(key_text())
    seq: int = _col(sa.BigInteger())
    trigger: str = Field(sa_column=Column("trigger_name", key_text(), nullable=False))
    from_state: str | None = _col(key_text(), null=True)
    to_state: str | None = _col(key_text(), null=True)
    reason: str | None = _col(long_text(), null=True)
    actor: str | None = _col(key_text(), null=True)
    version: int = _col(sa.BigInteger())
    txid: int | None = _col(sa.BigInteger(), null=True)
    created_at: datetime = _col(Timestamp())

    __table_args__ = (
        Index("ix_session_transitions_session", "tenant", "session_id", "id"),
        Index("ix_session_transitions_txid", "txid", "id"),
        _partial("ix_session_transitions_tombstones", "created_at", where="to_state IS NULL"),
        {**_OPTIONS, "sqlite_autoincrement": True},
    )


class ApprovalRow(Base, table=True):
    """A question put to a person: pending, then approved, rejected or expired."""

    __tablename__ = "session_approvals"

    tenant: str = _col(key_text())
    session_id: str = _col(key_text())
    approval_id: str = _col(key_text())
    action: str = _col(long_text())
    details: str | None = _col(long_text(), null=True)
    state: str = _col(key_text())
    requested_by: str | None = _col(key_text(), null=True)
    requested_at: datetime = _col(Timestamp())
    expires_at: datetime | None = _col(Timestamp(), null=True)
    resolved_by: str | None = _col(key_text(), null=True)
    resolved_at: datetime | None = _col(Timestamp(), null=True)
    note: str | None = _col(long_text(), null=True)
    suspended: bool = _col(sa.Boolean(create_constraint=False), default="false")

    __table_args__ = (
        PrimaryKeyConstraint("tenant", "session_id", "approval_id"),
        CheckConstraint("state IN ('pending', 'approved', 'rejected', 'expired')", name="state"),
        _partial("ix_session_approvals_pending", "expires_at", where="state = 'pending'"),
        _OPTIONS,
    )


class ConnectionRow(Base, table=True):
    """An open socket of a session, kept alive by beats. `silent_at` is rounded, so that a beat rarely moves its index."""

    __tablename__ = "session_connections"

    tenant: str = _col(key_text())
    session_id: str = _col(key_text())
    connection_id: str = _col(key_text())
    client: str | None = _col(long_text(), null=True)
    opened_at: datetime = _col(Timestamp())
    beat_at: datetime = _col(Timestamp())
    silent_at: datetime = _col(Timestamp())

    __table_args__ = (
        PrimaryKeyConstraint("tenant", "session_id", "connection_id"),
        Index("ix_session_connections_silent", "silent_at"),
        _OPTIONS,
    )


class TokenRow(Base, table=True):
    """A retry token of a save: repeating it gives the version back instead of saving again."""

    __tablename__ = "session_tokens"

    tenant: str = _col(key_text())
    session_id: str = _col(key_text())
    token: str = _col(key_text())
    digest: str = _col(key_text())
    version: int = _col(sa.BigInteger())
    created_at: datetime = _col(Timestamp())

    __table_args__ = (
        PrimaryKeyConstraint("tenant", "session_id", "token"),
        Index("ix_session_tokens_created_at", "created_at"),
        _OPTIONS,
    )


class GraphCheckpointRow(Base, table=True):
    """A checkpoint of a graph: what it says, and the writes of tasks that began with it (`lifecycle.graphs`)."""

    __tablename__ = "session_graph_checkpoints"

    tenant: str = _col(key_text())
    session_id: str = _col(key_text())
    # The namespace and the checkpoint's id.
    place: str = _col(key_text())
    # The run that made it, where it is known.
    run_id: str | None = _col(key_text(), null=True)
    # The number of the first item that came with it.
    first_item: int | None = _col(sa.BigInteger(), null=True)
    # Which items and values it is made of.
    needs: str | None = _col(long_text(), null=True)
    # NULL where writes came before the checkpoint itself, and where it was removed but for what others share of it.
    body: str | None = _col(Base64(), null=True)
    # A line for each call that stored some.
    writes: str | None = _col(long_text(), null=True)
    # A line for each element of a list that came with it, which other checkpoints may share.
    new_items: str | None = _col(long_text(), null=True)
    # No number among these is greater.
    last_item: int | None = _col(sa.BigInteger(), null=True)

    __table_args__ = (
        PrimaryKeyConstraint("tenant", "session_id", "place"),
        _partial("ix_session_graph_checkpoints_run", "tenant", "run_id", where="run_id IS NOT NULL"),
        _OPTIONS,
    )


class GraphValueRow(Base, table=True):
    """A large value of a graph's state, or a large text or bytes in one, by its digest. It never changes."""

    __tablename__ = "session_graph_values"

    tenant: str = _col(key_text())
    session_id: str = _col(key_text())
    name: str = _col(key_text())
    needs: str | None = _col(long_text(), null=True)
    content: str = _col(Base64())

    __table_args__ = (
        PrimaryKeyConstraint("tenant", "session_id", "name"),
        {**_OPTIONS, "postgresql_with": {"toast_tuple_target": 2704}},
    )


class WorkerRow(Base, table=True):
    """A running daemon, kept alive by beats."""

    __tablename__ = "workers"

    worker_id: str = _col(key_text())
    host: str = _col(key_text())
    pid: int = _col(sa.Integer())
    release: str = Field(sa_column=Column("release_name", key_text(), nullable=False))
    state: str = _col(key_text())
    started_at: datetime = _col(Timestamp())
    beat_at: datetime = _col(Timestamp())

    __table_args__ = (PrimaryKeyConstraint("worker_id"), _OPTIONS)


class WorkerJobRow(Base, table=True):
    """Who runs a job on a slice of the key space, under which term, and how its last run went."""

    __tablename__ = "worker_jobs"

    job: str = _col(key_text())
    slice: int = Field(sa_column=Column("slice_no", sa.Integer(), nullable=False))
    holder: str | None = _col(key_text(), null=True)
    term: int = _col(sa.BigInteger(), default="0")
    lease_expires_at: datetime | None = _col(Timestamp(), null=True)
    last_started_at: datetime | None = _col(Timestamp(), null=True)
    last_finished_at: datetime | None = _col(Timestamp(), null=True)
    last_result: str | None = _col(long_text(), null=True)
    last_error: str | None = _col(long_text(), null=True)

    __table_args__ = (PrimaryKeyConstraint("job", "slice_no"), _OPTIONS)


class ApiKeyRow(Base, table=True):
    """A key to the HTTP API: a digest of its secret, whose sessions it opens (NULL: everybody's) and for what."""

    __tablename__ = "api_keys"

    key_id: str = _col(key_text())
    tenant: str | None = _col(key_text(), null=True)
    name: str = _col(key_text())
    scope: str = _col(key_text())
    digest: str = _col(key_text())
    created_at: datetime = _col(Timestamp())
    expires_at: datetime | None = _col(Timestamp(), null=True)
    revoked_at: datetime | None = _col(Timestamp(), null=True)
    last_used_at: datetime | None = _col(Timestamp(), null=True)

    __table_args__ = (PrimaryKeyConstraint("key_id"), _OPTIONS)


class IdempotencyKeyRow(Base, table=True):
    """A request to the HTTP API that must not be carried out twice, and what it was answered (NULL: still under way)."""

    __tablename__ = "idempotency_keys"

    tenant: str = _col(key_text())
    caller: str = _col(key_text())
    idempotency_key: str = _col(key_text())
    digest: str = _col(key_text())
    status: int | None = _col(sa.Integer(), null=True)
    headers: str | None = _col(long_text(), null=True)
    body: str | None = _col(long_text(), null=True)
    created_at: datetime = _col(Timestamp())
    claimed_at: datetime = _col(Timestamp())

    __table_args__ = (
        PrimaryKeyConstraint("tenant", "caller", "idempotency_key"),
        Index("ix_idempotency_keys_created_at", "created_at"),
        _OPTIONS,
    )


class SampleRow(Base, table=True):
    """A number of a tenant's at a time: what the dashboard and the metrics show, so that they need not count rows."""

    __tablename__ = "session_samples"

    tenant: str = _col(key_text())
    name: str = _col(key_text())
    sampled_at: datetime = _col(Timestamp())
    value: int = _col(sa.BigInteger())

    __table_args__ = (
        PrimaryKeyConstraint("tenant", "name", "sampled_at"),
        Index("ix_session_samples_sampled_at", "sampled_at"),
        _OPTIONS,
    )


class SecretRow(Base, table=True):
    """A secret that the processes which serve the HTTP API share: what signs the dashboard's cookies."""

    __tablename__ = "service_secrets"

    name: str = _col(key_text())
    value: str = _col(long_text())
    created_at: datetime = _col(Timestamp())

    __table_args__ = (PrimaryKeyConstraint("name"), _OPTIONS)


def table(row: type[Base]) -> sa.Table:
    """The Core table behind a row class."""
    core: sa.Table = getattr(row, "__table__")  # noqa: B009 - SQLModel does not declare it
    return core


sessions = table(SessionRow)
session_states = table(StateRow)
entries = table(EntryRow)
values = table(ValueRow)
checkpoints = table(CheckpointRow)
messages = table(MessageRow)
transitions = table(TransitionRow)
approvals = table(ApprovalRow)
connections = table(ConnectionRow)
tokens = table(TokenRow)
graph_checkpoints = table(GraphCheckpointRow)
graph_values = table(GraphValueRow)
workers = table(WorkerRow)
worker_jobs = table(WorkerJobRow)
api_keys = table(ApiKeyRow)
idempotency_keys = table(IdempotencyKeyRow)
samples = table(SampleRow)
secrets = table(SecretRow)

# Everything that goes with a session when it is removed; the audit log is treated apart, for its tombstones.
CHILDREN: tuple[sa.Table, ...] = (
    session_states,
    entries,
    values,
    checkpoints,
    messages,
    approvals,
    connections,
    tokens,
    graph_checkpoints,
    graph_values,
)
