"""From a row of the database to the value a caller gets."""

from datetime import datetime
from typing import Any

from lifecycle.documents import decode
from lifecycle.errors import StorageUnavailable
from lifecycle.models.reads import (
    Approval,
    Checkpoint,
    CheckpointDocuments,
    Connection,
    Message,
    SavedState,
    Session,
    TransitionRecord,
)
from lifecycle.operations.requests import Row

SESSION_FIELDS = tuple(Session.model_fields)


def session(row: Row) -> Session:
    """A session; columns that are ours alone are left behind."""
    # A row of just these columns is taken as it is: nobody else holds it.
    values = row if len(row) == len(SESSION_FIELDS) else {name: row[name] for name in SESSION_FIELDS}
    values["metadata"] = decode(values["metadata"])
    values["config"] = decode(values["config"])
    return Session.of(values)


_STATE = ("conversation", "context", "plan")


def saved_state(row: Row) -> SavedState:
    """The documents of the last save."""
    for name in _STATE:
        row[name] = _whole(row, name)
    return SavedState.of(row)


def _whole(row: Row, name: str) -> Any:
    if row[name] == "":
        raise StorageUnavailable(
            f"session {row['session_id']!r}: the database has lost parts of the {name}; restore the session from a backup"
        )
    return decode(row[name])


def checkpoint(row: Row) -> Checkpoint:
    """A checkpoint without its documents."""
    return Checkpoint.of({name: row[name] for name in Checkpoint.model_fields} | {"data": decode(row["data"])})


def checkpoint_documents(row: Row) -> CheckpointDocuments:
    """A checkpoint with its documents."""
    read = {"data": decode(row["data"]), **{name: _whole(row, name) for name in _STATE}}
    return CheckpointDocuments.of({name: row[name] for name in CheckpointDocuments.model_fields} | read)


def message(row: Row) -> Message:
    """A message with its content as it was given."""
    return placed_message(row, row["session_id"], row["seq"], row["created_at"])


def placed_message(row: Row, session_id: str, seq: int, created_at: datetime) -> Message:
    """A message that was just added."""
    return Message.of(
        {
            "session_id": session_id,
            "seq": seq,
            "message_id": row["message_id"],
            "role": row["role"],
            "content": decode(row["content"]) if row["encoding"] == "json" else row["content"],
            "agent_id": row["agent_id"],
            "metadata": {} if row["metadata"] is None else decode(row["metadata"]),
            "created_at": created_at,
        }
    )


def transition(row: Row) -> TransitionRecord:
    """A line of the audit log."""
    return TransitionRecord.of(
        {name: row[name] for name in TransitionRecord.model_fields if name != "trigger"}
        | {"trigger": row["trigger_name"]}
    )


def approval(row: Row) -> Approval:
    """An approval."""
    return Approval.of({name: row[name] for name in Approval.model_fields} | {"details": decode(row["details"])})


def connection(row: Row) -> Connection:
    """A connection."""
    return Connection.of({name: row[name] for name in Connection.model_fields} | {"client": decode(row["client"])})
