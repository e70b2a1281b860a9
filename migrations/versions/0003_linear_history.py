"""Conversations by entries, and large documents by pieces, so that a save stores what changed and checkpoints share it.

Revision ID: 0003
Revises: 0002
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import context, op

from lifecycle.models.types import Timestamp, key_text, long_text

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_PAGE = 200
_OPTIONS = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_nopad_bin"))
}
_KEY = ("tenant", "session_id")
_sessions = sa.table(
    "sessions", *map(sa.column, (*_KEY, "next_entry", "entries_from", "entries_before", "checkpoint_version", "checkpoint_entry")),
    sa.column("saved_at", Timestamp()),
)  # fmt: skip
_states = sa.table(
    "session_states", *map(sa.column, (*_KEY, "conversation", "context", "context_pieces", "plan", "plan_pieces")),
    sa.column("version"), sa.column("saved_at", Timestamp()),
)  # fmt: skip
_checkpoints = sa.table(
    "session_checkpoints",
    *map(sa.column, (*_KEY, "seq", "version", "conversation", "next_entry", "entries_from", "entries_before")),
    *map(sa.column, ("context", "context_pieces", "plan", "plan_pieces")),
)
_entries = sa.table("session_entries", *map(sa.column, (*_KEY, "number", "digest", "content")))
_values = sa.table("session_values", *map(sa.column, (*_KEY, "name", "content")))


def upgrade() -> None:
    """Create the tables, and take the conversations apart."""
    repeatable = _repeatable()
    op.create_table(
        "session_entries",
        sa.Column("tenant", key_text(), nullable=False),
        sa.Column("session_id", key_text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("digest", key_text(), nullable=False),
        sa.Column("content", long_text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "session_id", "number", name=op.f("pk_session_entries")),
        if_not_exists=repeatable,
        postgresql_with={"toast_tuple_target": 2704},
        **_OPTIONS,
    )
    op.create_table(
        "session_values",
        sa.Column("tenant", key_text(), nullable=False),
        sa.Column("session_id", key_text(), nullable=False),
        sa.Column("name", key_text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("content", long_text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "session_id", "name", name=op.f("pk_session_values")),
        if_not_exists=repeatable,
        **_OPTIONS,
    )
    op.create_index(
        "ix_session_values_version", "session_values", ["tenant", "session_id", "version"], if_not_exists=repeatable
    )
    _add("sessions", sa.Column("saved_at", Timestamp(), nullable=True))
    _add("sessions", sa.Column("next_entry", sa.BigInteger(), nullable=False, server_default=sa.text("1")))
    _add("sessions", sa.Column("entries_from", sa.BigInteger(), nullable=True))
    _add("sessions", sa.Column("entries_before", long_text(), nullable=True))
    _add("sessions", sa.Column("checkpoint_version", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    _add("sessions", sa.Column("checkpoint_entry", sa.BigInteger(), nullable=False, server_default=sa.text("1")))
    _add("session_states", sa.Column("context_pieces", long_text(), nullable=True))
    _add("session_states", sa.Column("plan_pieces", long_text(), nullable=True))
    _add("session_checkpoints", sa.Column("next_entry", sa.BigInteger(), nullable=False, server_default=sa.text("1")))
    _add("session_checkpoints", sa.Column("entries_from", sa.BigInteger(), nullable=True))
    _add("session_checkpoints", sa.Column("entries_before", long_text(), nullable=True))
    _add("session_checkpoints", sa.Column("context_pieces", long_text(), nullable=True))
    _add("session_checkpoints", sa.Column("plan_pieces", long_text(), nullable=True))
    # MariaDB's DDL locks nobody out: without this column the release before can save nothing while we read.
    _drop("session_states", "version")
    if context.is_offline_mode():
        _refuse_saved_states()
    elif _has("session_states", "conversation"):
        _take_apart(op.get_bind())
    _drop("session_checkpoints", "conversation")
    _drop("session_states", "saved_at")
    _drop("session_states", "conversation")  # the last: it tells that there may be some to take apart


def downgrade() -> None:
    """Put the conversations together again, and drop the tables."""
    _add("session_states", sa.Column("conversation", long_text(), nullable=True))
    _add("session_states", sa.Column("version", sa.BigInteger(), nullable=False, server_default=sa.text("1")))
    _add("session_states", sa.Column("saved_at", Timestamp(), nullable=True))
    _add("session_checkpoints", sa.Column("conversation", long_text(), nullable=True))
    # Whoever saves reads it: without it, nothing is saved while we read.
    _drop("sessions", "checkpoint_version")
    if _has("sessions", "entries_from"):
        _put_together(op.get_bind())
    _require_values()
    for column in ("context_pieces", "plan_pieces", "entries_before", "entries_from", "next_entry"):
        _drop("session_checkpoints", column)
    for column in ("context_pieces", "plan_pieces"):
        _drop("session_states", column)
    op.drop_table("session_entries", if_exists=True)
    op.drop_table("session_values", if_exists=True)
    for column in (
        "saved_at",
        "next_entry",
        "entries_before",
        "checkpoint_entry",
        "entries_from",
    ):
        _drop("sessions", column)


def _repeatable() -> bool:
    # DDL commits by itself there, so an upgrade that was interrupted must be able to start again.
    return op.get_context().dialect.name in {"mysql", "mariadb"}


def _has(table: str, column: str) -> bool:
    if context.is_offline_mode():
        return False
    return column in {found["name"] for found in sa.inspect(op.get_bind()).get_columns(table)}


def _add(table: str, column: sa.Column[Any]) -> None:
    if not (_repeatable() and _has(table, column.name)):
        op.add_column(table, column)


def _drop(table: str, column: str) -> None:
    if not _repeatable() or context.is_offline_mode() or _has(table, column):
        op.drop_column(table, column)


def _refuse_saved_states() -> None:
    """Make a printed script fail on a database with saved states: taking them apart needs more than SQL."""
    if op.get_context().dialect.name == "postgresql":
        op.execute(
            "DO $$ BEGIN IF EXISTS (SELECT FROM session_states) THEN RAISE EXCEPTION"
            " 'there are saved states: run lifecycle db upgrade instead of this script'; END IF; END $$"
        )


def _require_values() -> None:
    """What the columns of the release before are declared as."""
    if op.get_context().dialect.name == "sqlite":
        with op.batch_alter_table("session_states") as batch:
            batch.alter_column("version", existing_type=sa.BigInteger(), nullable=False, server_default=None)
            batch.alter_column("saved_at", existing_type=Timestamp(), nullable=False)
        return
    op.alter_column(
        "session_states", "version", existing_type=sa.BigInteger(), existing_nullable=False, server_default=None
    )
    op.alter_column("session_states", "saved_at", existing_type=Timestamp(), nullable=False)


def _mine(table: Any, row: Any) -> Any:
    return sa.and_(table.c.tenant == row["tenant"], table.c.session_id == row["session_id"])


def _keys(connection: sa.Connection, *tables: Any) -> Iterator[dict[str, Any]]:
    """The keys of the sessions that stand in any of the tables, in order, a page at a time."""
    last = ("", "")
    while True:
        found: set[tuple[str, str]] = set()
        for table in tables:
            behind = sa.or_(table.c.tenant > last[0], sa.and_(table.c.tenant == last[0], table.c.session_id > last[1]))
            chosen = sa.select(table.c.tenant, table.c.session_id).distinct().where(behind)
            chosen = chosen.order_by(table.c.tenant, table.c.session_id).limit(_PAGE)
            found |= {(row.tenant, row.session_id) for row in connection.execute(chosen)}
        page = sorted(found)[:_PAGE]
        if not page:
            return
        for tenant, session_id in page:
            yield {"tenant": tenant, "session_id": session_id}
        last = page[-1]


def _take_apart(connection: sa.Connection) -> None:
    """Store the conversations of checkpoints and states as entries, the beginnings that they share once."""
    chosen = (_checkpoints.c.seq, _checkpoints.c.version, _checkpoints.c.conversation)
    for key in _keys(connection, _states, _checkpoints):
        connection.execute(sa.delete(_entries).where(_mine(_entries, key)))  # of an upgrade that was interrupted
        stored: list[str] = []
        before, count, version, checkpointed = 0, 0, 0, 1
        found = connection.execute(sa.select(*chosen).where(_mine(_checkpoints, key)).order_by(_checkpoints.c.seq))
        for checkpoint in found.all():
            version = checkpoint.version
            before, count, columns = _add_entries(connection, key, checkpoint.conversation, stored, before, count)
            checkpointed = columns["next_entry"]
            connection.execute(
                sa.update(_checkpoints)
                .where(_mine(_checkpoints, key), _checkpoints.c.seq == checkpoint.seq)
                .values(columns)
            )
        state = connection.execute(
            sa.select(_states.c.conversation, _states.c.saved_at).where(_mine(_states, key))
        ).first()
        if state is None:
            columns = {"next_entry": before + count + 1}
        else:
            before, count, columns = _add_entries(connection, key, state.conversation, stored, before, count)
            columns["saved_at"] = state.saved_at
        columns |= {"checkpoint_version": version, "checkpoint_entry": checkpointed}
        connection.execute(sa.update(_sessions).where(_mine(_sessions, key)).values(columns))


def _add_entries(
    connection: sa.Connection, key: dict[str, Any], text: str | None, stored: list[str], before: int, count: int
) -> tuple[int, int, dict[str, Any]]:
    """Store a conversation behind what it begins with, or anew: the numbers before it, its length, its columns.

    `stored` holds the digests of the last one stored, whose entries are numbered from `before` + 1 on.
    """
    value = None if text is None else json.loads(text)
    if value is None:
        return before, count, {"next_entry": before + count + 1, "entries_from": None, "entries_before": None}
    texts = [json.dumps(entry, ensure_ascii=False, separators=(",", ":")) for entry in value]
    digests = [_digest(entry) for entry in texts]
    if digests[:count] != stored:
        before, count = before + count, 0
    rows = [
        {**key, "number": before + i + 1, "digest": digests[i], "content": texts[i]} for i in range(count, len(texts))
    ]
    if rows:
        connection.execute(sa.insert(_entries), rows)
    stored[:] = digests
    columns = {"next_entry": before + len(texts) + 1, "entries_from": before + 1, "entries_before": None}
    return before, len(texts), columns


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.blake2b(text.encode(), digest_size=16).digest())[:22].decode()


def _put_together(connection: sa.Connection) -> None:
    documents = ("context", "context_pieces", "plan", "plan_pieces")
    entries = ("next_entry", "entries_from", "entries_before")
    for key in _keys(connection, _sessions):
        session = connection.execute(
            sa.select(*(_sessions.c[name] for name in (*entries, "saved_at"))).where(_mine(_sessions, key))
        ).one()
        numbered = sa.select(_entries.c.number, _entries.c.content).where(_mine(_entries, key))
        contents = {row.number: row.content for row in connection.execute(numbered)}
        named = sa.select(_values.c.name, _values.c.content).where(_mine(_values, key))
        pieces = {row.name: row.content for row in connection.execute(named)}
        if session.saved_at is not None:
            chosen = sa.select(*(_states.c[name] for name in documents)).where(_mine(_states, key))
            state = connection.execute(chosen).first()
            columns = {
                **_texts(state, pieces), "conversation": _text(session, contents), "saved_at": session.saved_at,
            }  # fmt: skip
            if state is None:
                connection.execute(sa.insert(_states).values(**key, version=1, **columns))
            else:
                connection.execute(sa.update(_states).where(_mine(_states, key)).values(columns))
        listed = sa.select(*(_checkpoints.c[name] for name in ("seq", *entries, *documents)))
        for row in connection.execute(listed.where(_mine(_checkpoints, key))).all():
            columns = {**_texts(row, pieces), "conversation": _text(row, contents)}
            own = _mine(_checkpoints, key), _checkpoints.c.seq == row.seq
            connection.execute(sa.update(_checkpoints).where(*own).values(columns))
    behind = sa.select(_sessions.c.saved_at).where(
        _sessions.c.tenant == _states.c.tenant, _sessions.c.session_id == _states.c.session_id
    )
    left = sa.update(_states).where(_states.c.saved_at.is_(None)).values(saved_at=behind.scalar_subquery())
    connection.execute(left)


def _text(holder: Any, contents: dict[int, str]) -> str | None:
    if holder.entries_from is None:
        return None
    runs = [*json.loads(holder.entries_before or "[]"), (holder.entries_from, holder.next_entry - 1)]
    return f"[{','.join(contents[number] for first, last in runs for number in range(first, last + 1))}]"


def _texts(row: Any, pieces: dict[str, str]) -> dict[str, str | None]:
    """The documents of a row as texts."""
    texts: dict[str, str | None] = {}
    for name in ("context", "plan"):
        texts[name] = None if row is None else getattr(row, name)
        parts = None if row is None else getattr(row, f"{name}_pieces")
        if parts is not None:
            listed = json.loads(parts)
            listed[1::2] = [pieces[piece] for piece in listed[1::2]]
            texts[name] = "".join(listed)
    return texts
