"""What the calls on a session directory give back."""

from lifecycle.models.reads import Read


class AgentScan(Read):
    """What is on disk for one agent. Sizes are in bytes; `sessions` are those with a key."""

    agent: str
    sessions: int
    kinds: dict[str, int]
    keys: int
    index_bytes: int
    transcripts: int
    transcript_bytes: int
    orphans: int
    orphan_bytes: int
    missing: int
    """Sessions with a key and without a transcript."""
    empty: int
    """Sessions without a message."""
    archives: int
    archive_bytes: int
    malformed: int
    """Keys whose entries name no session."""
    problem: str | None


class ScanReport(Read):
    """What is on disk below a root."""

    root: str
    agents: list[AgentScan]
    total: AgentScan
    seconds: float


class SyncProblem(Read):
    """Something that was passed over: where it is, and why."""

    where: str
    reason: str


class SyncReport(Read):
    """What a sync found and did.

    `created` to `ended` are sessions, `messages` those that were added. `transcripts_opened` and `transcript_bytes`
    are what it read. `complete` is false when it was stopped, `problems` are the first hundred of `problem_count`.
    """

    root: str
    agents: int
    sessions: int
    created: int
    updated: int
    unchanged: int
    ended: int
    failed: int
    orphans: int
    messages: int
    transcripts_opened: int
    transcript_bytes: int
    indexes_opened: int
    index_bytes: int
    malformed: int
    torn: int
    problem_count: int
    problems: list[SyncProblem]
    complete: bool
    seconds: float


class DeleteReport(Read):
    """What became of a session: `database_updated` says whether the database has it, as finished."""

    deleted: str
    removed_keys: list[str]
    transcript_archived: bool
    database_updated: bool


class PruneReport(Read):
    """What a prune did, or with `dry_run` would do: the ids are those on disk. `errors` says what was not done."""

    total_sessions: int
    pruned_count: int
    kept_count: int
    dry_run: bool
    deleted_ids: list[str]
    errors: list[str]
    threshold_minutes: int | float


class Orphan(Read):
    """A transcript that no key points at. `age` is in seconds since its last change."""

    agent: str
    transcript: str
    session_id: str
    bytes: int
    age: float


class OrphanReport(Read):
    """The orphans of a root: those that are old enough and, with `archive`, how many of them were archived."""

    orphan_count: int
    orphan_bytes: int
    too_young: int
    archived_count: int
    archived: bool
    orphans: list[Orphan]
    errors: list[str]


class RetentionReport(Read):
    """Which archives were removed, or with `dry_run` would be. Sizes are in bytes; `over_budget` is what is still too much."""

    dry_run: bool
    archives: int
    archive_bytes: int
    removed_count: int
    removed_bytes: int
    expired_count: int
    total_bytes: int
    disk_budget: int | None
    over_budget: int
    errors: list[str]
