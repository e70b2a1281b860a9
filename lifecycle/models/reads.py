"""The typed values that calls give back. They are frozen: a change goes through the manager."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

_put = object.__setattr__


class Read(BaseModel):
    """A value read from the database. It was valid when it was written, so it is not validated again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """Build from a complete mapping of fields without validating: a tenth of the cost of the constructor."""
        self = cls.__new__(cls)
        _put(self, "__dict__", values)
        _put(self, "__pydantic_fields_set__", cls.__pydantic_fields__.keys())
        _put(self, "__pydantic_extra__", None)
        _put(self, "__pydantic_private__", None)
        return self


class Session(Read):
    """A session as it was read: where it stands, whose it is, and its deadlines (UTC)."""

    tenant: str
    session_id: str
    kind: str
    user_id: str | None
    agent_id: str | None
    parent_id: str | None
    title: str | None
    state: str
    reason: str | None
    metadata: dict[str, Any]
    config: dict[str, Any]
    version: int
    phase: str | None
    step: int | None
    message_count: int
    last_message_at: datetime | None
    protected: bool
    created_at: datetime
    updated_at: datetime
    last_active_at: datetime
    idle_active: int | None
    idle_suspended: int | None
    max_age_at: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None
    prune_at: datetime | None
    deleted_at: datetime | None
    lease_holder: str | None
    lease_epoch: int
    lease_expires_at: datetime | None
    attempts: int
    rescues: int
    runs: bool
    available_at: datetime | None
    pending_approvals: int


class SavedState(Read):
    """What the last save left: the documents, and the version it made."""

    session_id: str
    conversation: Any
    context: Any
    plan: Any
    phase: str | None
    step: int | None
    version: int
    saved_at: datetime


class Checkpoint(Read):
    """A labelled copy of the saved state; the documents are None in a listing."""

    session_id: str
    seq: int
    label: str
    data: Any
    phase: str | None
    step: int | None
    version: int
    created_at: datetime


class CheckpointDocuments(Checkpoint):
    """A checkpoint with the documents that it keeps."""

    conversation: Any
    context: Any
    plan: Any


class Message(Read):
    """One message; `seq` orders it within its session."""

    session_id: str
    seq: int
    message_id: str
    role: str
    content: Any
    agent_id: str | None
    metadata: dict[str, Any]
    created_at: datetime


class TransitionRecord(Read):
    """One line of the audit log. `from_state` is None for a creation, `to_state` None for a deletion."""

    tenant: str
    session_id: str
    id: int
    seq: int
    trigger: str
    from_state: str | None
    to_state: str | None
    reason: str | None
    actor: str | None
    version: int
    created_at: datetime


class Approval(Read):
    """A question put to a person, and the answer once there is one."""

    tenant: str
    session_id: str
    approval_id: str
    action: str
    details: Any
    state: str
    requested_by: str | None
    requested_at: datetime
    expires_at: datetime | None
    resolved_by: str | None
    resolved_at: datetime | None
    note: str | None
    suspended: bool


class Connection(Read):
    """An open socket of a session and when it was last heard of."""

    session_id: str
    connection_id: str
    client: Any
    opened_at: datetime
    beat_at: datetime


class SessionPage(Read):
    """One page of a listing. `total` is None unless it was asked for; `next_cursor` leads to the next page."""

    items: list[Session]
    total: int | None
    has_more: bool
    next_cursor: str | None


class StuckSession(Read):
    """A session that nobody seems to get on with, and why."""

    why: str
    session: Session


class SweepReport(Read):
    """What a sweep did, or with `dry_run` would have done.

    `count` are rows acted on; `complete` is false when its budget ended with rows still due. `oldest_due` is the
    deadline of the oldest row that was due when it began, and `backlog_age` how long ago that was, in seconds.
    """

    sweep: str
    dry_run: bool
    count: int
    batches: int
    complete: bool
    oldest_due: datetime | None
    backlog_age: float
    seconds: float
    session_ids: list[str]


class SessionCounts(Read):
    """What a worker counted when it last looked, at `sampled_at`; ages are in whole seconds.

    `due_to_expire` and `due_to_prune` count up to 100,000 over all tenants: that number stands for as many or more.
    `backlog_age` is how long ago the oldest session that is due to expire should have been. `transitions` are those
    since counting began, by trigger, of all tenants together; empty for a single one.
    """

    sampled_at: datetime
    by_state: Mapping[str, int]
    due_to_expire: int
    backlog_age: float
    due_to_prune: int
    pending_approvals: int
    leased: int
    transitions: Mapping[str, int]


class Samples(Read):
    """Numbers over time: for each name the (time, value) pairs, oldest first.

    `sampled_at` is when a worker last looked, None if none ever did. `counted_since` is when transitions began to be
    counted: the hours from then on are all there, with 0 where nothing happened.
    """

    sampled_at: datetime | None
    counted_since: datetime | None
    series: Mapping[str, list[tuple[datetime, float]]]


class Health(Read):
    """Whether the database answers with the right schema, and how its jobs go.

    `at` is the database's time, `schema_revision` that of its tables. `jobs` and
    `workers` are the rows of `list_workers`. `counts` is None where no worker ever counted.
    """

    at: datetime
    schema_revision: str | None
    jobs: list[dict[str, Any]]
    workers: list[dict[str, Any]]
    counts: SessionCounts | None


class Stats(Read):
    """Totals of a tenant's sessions. Sizes are in bytes, ages in seconds."""

    total: int
    by_state: Mapping[str, int]
    by_kind: Mapping[str, int]
    by_agent: Mapping[str, int]
    messages: int
    deleted: int
    oldest_session_at: datetime | None
    newest_activity_at: datetime | None
    due_to_expire: int
    oldest_due_at: datetime | None
    backlog_age: float
    sizes: Mapping[str, int]


class ApiKey(Read):
    """A key to the HTTP API; `tenant` is None where it opens everybody's sessions. Its text is nowhere."""

    key_id: str
    tenant: str | None
    name: str
    scope: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewApiKey(ApiKey):
    """A key that was just made, with its text (`key`), which nothing shows again."""

    key: str = Field(repr=False)
