"""What an operation asks of the database, by name. A recipe per dialect says how it is met.

Each request says what comes back. None as the answer of a write means that it was refused; why is a
second, rare read, which the operation makes. Nobody changes a request; they are not frozen, as freezing them triples
the cost of making one.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lifecycle.entries import Entries
from lifecycle.operations.places import Place
from lifecycle.pieces import Document

Operation = Generator[Any, Any, Any]
Row = dict[str, Any]
SecondsMap = tuple[str, int | None]
# Who holds the lease that a write is made under, and its epoch.
Fence = tuple[str, int]
# A checkpoint of a graph as it was seen: its place, its needs and the number of its first item.
GraphParent = tuple[str, str | None, int | None]


class DuplicateKey(Exception):
    """A driver's word for a broken unique constraint; operations turn it into what it means."""


class Refused(DuplicateKey):
    """That the request at this place of a `Together` was refused, so that none of them was met."""

    def __init__(self, place: int) -> None:
        super().__init__(f"request {place}")
        self.place = place


@dataclass(slots=True)
class Request:
    """Anything an operation yields."""


@dataclass(slots=True)
class OfSession(Request):
    """A request about one session."""

    tenant: str
    session_id: str


@dataclass(slots=True)
class CreateSession(OfSession):
    """Insert the session, its audit row, and its saved state if documents are given: the row, or None if it exists."""

    values: Row
    documents: Mapping[str, Document]
    conversation: Entries | None
    max_age: int | None
    idle: int | None
    ghosts: int | None
    actor: str | None

    @property
    def saved(self) -> bool:
        """Whether it has a saved state from the beginning."""
        return bool(self.documents) or self.conversation is not None


@dataclass(slots=True)
class CreateSessions(Request):
    """Create sessions, each with its first messages, in one transaction: which were made; those that exist stay."""

    items: tuple[tuple[CreateSession, "AddMessages | None"], ...]


@dataclass(slots=True)
class GetSession(OfSession):
    """Read one session: its row or None."""

    deleted: bool = False


@dataclass(slots=True)
class SaveState(OfSession):
    """Save documents and fields of an active session that nobody else holds: the new version, or None if refused.

    `conversation` replaces what is stored: where it is more than that with something behind it, the save may be refused
    and is to be repeated as `SaveEdited`.
    """

    documents: Mapping[str, Document]
    conversation: Entries | None
    append: Entries | None
    fields: Mapping[str, Any]
    expected: int | None
    token: str | None
    digest: str | None
    fence: Fence | None = None


@dataclass(slots=True)
class SaveEdited(SaveState):
    """As SaveState, for a conversation of which any part was changed: entries that nothing needs any more are removed."""


@dataclass(slots=True)
class GetToken(OfSession):
    """Read a retry token: (digest, version) or None."""

    token: str


@dataclass(slots=True)
class LoadState(OfSession):
    """Read the saved state: its row or None."""

    any_state: bool


@dataclass(slots=True)
class Move(OfSession):
    """Move the session by a trigger if it is in one of the sources: the new row, or None if refused."""

    trigger: str
    reason: str | None
    actor: str | None
    retention: SecondsMap
    max_age: SecondsMap
    expected: int | None = None
    fence: Fence | None = None


@dataclass(slots=True)
class Touch(Request):
    """Mark live sessions as active now: the ids that were. With `passing`, what others have locked is passed over."""

    tenant: str
    session_ids: tuple[str, ...]
    passing: bool = False


@dataclass(slots=True)
class AddMessages(OfSession):
    """Append messages to a live session: [(seq, created_at)], or None if refused. Raises DuplicateKey for a taken id."""

    messages: tuple[Row, ...]
    auto_title: tuple[str, str] | None
    fence: Fence | None = None


@dataclass(slots=True)
class AddMissingMessages(OfSession):
    """As AddMessages, for a retry: ids that are there already are left out: the rows of all of them, or None if refused.

    Raises MessageExists, adding none, when one of those says something else.
    """

    messages: tuple[Row, ...]
    fence: Fence | None = None


@dataclass(slots=True)
class GetMessages(OfSession):
    """Read messages in order of seq: rows."""

    limit: int
    offset: int
    since: datetime | None
    after: int | None
    before: int | None


@dataclass(slots=True)
class RemoveMessage(OfSession):
    """Remove one message, the last one where no id is given: its row or None."""

    message_id: str | None
    fence: Fence | None = None


@dataclass(slots=True)
class ClearMessages(OfSession):
    """Remove all messages: how many there were, or None if refused."""

    fence: Fence | None = None


@dataclass(slots=True)
class UpdateSession(OfSession):
    """Set columns: the new row, or None if refused."""

    values: Row
    expected: int | None
    # Whether to reckon the deadline anew, after a change of an idle limit.
    restamp: bool


@dataclass(slots=True)
class DeleteSessions(Request):
    """Remove sessions by key with all they own, leaving an audit row each: the number removed.

    `descendants` takes the children of the children too.
    """

    keys: tuple[tuple[str, str], ...]
    actor: str | None
    reason: str | None
    force: bool
    descendants: bool = False
    end_first: bool = False
    # Where they are written first; None removes them for good.
    archive: Any = None


@dataclass(slots=True)
class SoftDelete(OfSession):
    """Hide a session, or show it again: the row or None."""

    hide: bool
    actor: str | None
    retention: Mapping[str, SecondsMap]
    force: bool = False


@dataclass(slots=True)
class ListSessions(Request):
    """Read a page: ([row], total or None). One row more than `limit` tells that there is another page."""

    tenant: str | None
    filters: Mapping[str, Any]
    sort: str
    descending: bool
    limit: int
    offset: int
    cursor: tuple[Any, ...] | None
    count: bool
    where: Any = None


@dataclass(slots=True)
class GetHistory(OfSession):
    """Read the audit log of a session in order: rows."""

    limit: int


@dataclass(slots=True)
class RecentTransitions(Request):
    """Read the newest lines of the audit log, of one session (with its tenant) or of all, newest first: rows."""

    tenant: str | None
    session_id: str | None
    limit: int


@dataclass(slots=True)
class ListStuck(Request):
    """Read the sessions that are stuck for one reason, the longest first: rows."""

    tenant: str | None
    why: str
    silent_for: int
    limit: int


@dataclass(slots=True)
class GetStats(Request):
    """Read totals: a mapping."""

    tenant: str | None


@dataclass(slots=True)
class MakeCheckpoint(OfSession):
    """Copy the saved state under a label, removing what the policy does not keep: the row, or None if refused."""

    label: str
    data: str | None
    policies: Any
    fence: Fence | None = None


@dataclass(slots=True)
class ListCheckpoints(OfSession):
    """Read the checkpoints' rows without their documents, oldest first."""


@dataclass(slots=True)
class GetCheckpoint(OfSession):
    """Read one checkpoint with its documents: its row or None."""

    seq: int


@dataclass(slots=True)
class RestoreCheckpoint(OfSession):
    """Make a checkpoint the saved state of an active session: the new version, None if refused, 0 for no such one."""

    seq: int
    fence: Fence | None = None


@dataclass(slots=True)
class ForkSession(OfSession):
    """Create a session from another's state: the row, None if the id is taken, 0 for no such source."""

    new_id: str
    checkpoint: int | None
    actor: str | None
    policies: Any


@dataclass(slots=True)
class AcquireLease(OfSession):
    """Take the lease of a live session that nobody holds: its new epoch, or None if refused."""

    holder: str
    ttl: float


@dataclass(slots=True)
class RenewLeases(Request):
    """Prolong leases that are still the holder's: the (tenant, session id, epoch) of those that are.

    `leases` are (tenant, session id, epoch, seconds to live).
    """

    holder: str
    leases: tuple[tuple[str, str, int, float], ...]


@dataclass(slots=True)
class ReleaseLease(OfSession):
    """Give a lease back: whether it was still the holder's.

    With `retry_in` the session waits for a runner again in so many seconds; with `forget` the claim does not count.
    """

    fence: Fence
    retry_in: float | None = None
    forget: bool = False


@dataclass(slots=True)
class ClaimSessions(Request):
    """Lease sessions that wait for a runner, or whose runner died: their rows, each with its new epoch.

    A tenant's second waits until every other's first had its turn.
    """

    tenant: str | None
    kinds: tuple[str, ...]
    holder: str
    ttl: float
    limit: int


@dataclass(slots=True)
class RequestApproval(OfSession):
    """Insert a pending approval, suspending the session if asked: the row, or None if refused."""

    values: Row
    expires_in: int | None
    suspend: bool
    fence: Fence | None = None


@dataclass(slots=True)
class ResolveApproval(OfSession):
    """Decide a pending approval, resuming what it suspended: the row (its `state` tells), or None if there is none."""

    approval_id: str
    state: str
    by: str | None
    note: str | None


@dataclass(slots=True)
class ListApprovals(Request):
    """Read approvals, oldest first: rows."""

    tenant: str | None
    session_id: str | None
    state: str | None
    limit: int


@dataclass(slots=True)
class OpenConnection(OfSession):
    """Register a connection of a live session: its row, or None if refused."""

    connection_id: str
    client: str | None


@dataclass(slots=True)
class BeatConnection(OfSession):
    """A sign of life of a connection and its session: whether it is there."""

    connection_id: str


@dataclass(slots=True)
class CloseConnection(OfSession):
    """Remove a connection: whether it was there."""

    connection_id: str


@dataclass(slots=True)
class ListConnections(Request):
    """Read connections: rows."""

    tenant: str | None
    session_id: str | None


@dataclass(slots=True)
class Due(Request):
    """Which rows a sweep is about. The same predicate serves the dry run and the write."""

    tenant: str | None
    sweep: str
    kind: str | None = None
    states: tuple[str, ...] = ()
    seconds: int | None = None
    where: Any = None


@dataclass(slots=True)
class CountDue(Request):
    """Count what is due: (count, oldest deadline, now)."""

    due: Due


@dataclass(slots=True)
class OldestDue(Request):
    """Read the oldest deadline that is due: (deadline or None, now)."""

    due: Due


class SweptIds(list[str]):
    """The ids that a sweep acted on; `keys` says whose they are, `last` is the latest deadline among those looked at."""

    __slots__ = ("keys", "last")

    def __init__(self, keys: list[tuple[str, str]], last: datetime | None = None) -> None:
        super().__init__(session_id for _, session_id in keys)
        self.keys = keys
        self.last = last

    @classmethod
    def of(cls, rows: list[Row], last: datetime | None = None) -> "SweptIds":
        """Those of rows with a session's key."""
        return cls([(row["tenant"], row["session_id"]) for row in rows], last)


@dataclass(slots=True)
class SweepBatch(Request):
    """Act on at most `limit` due rows in one transaction: the ids acted on, as `SweptIds`."""

    due: Due
    limit: int
    reason: str | None
    actor: str | None
    retention: SecondsMap = ("{}", None)
    # Where what is removed is written first; None removes it for good.
    archive: Any = None
    # The deadline to begin at: what the batches before left behind in the index is not looked through again.
    since: datetime | None = None


@dataclass(slots=True)
class EraseArchived(Request):
    """Erase a user's sessions from the archive: the number of sessions."""

    archive: Any
    tenant: str
    user_id: str


@dataclass(slots=True)
class Trim(Request):
    """Remove what housekeeping keeps for a while only (tombstones, retry tokens, samples): the number removed."""

    tenant: str | None
    table: str
    older_than: int
    limit: int


@dataclass(slots=True)
class Restamp(Request):
    """Stamp the deadlines of one kind's sessions anew, after `after` in key order: (the last key or None, number)."""

    tenant: str | None
    policies: Any
    after: tuple[str, str]
    limit: int
    dry_run: bool


@dataclass(slots=True)
class BeatWorker(Request):
    """Register a worker or renew its sign of life; removing it with state None."""

    worker_id: str
    host: str
    pid: int
    release: str
    state: str | None


@dataclass(slots=True)
class ListWorkers(Request):
    """Read workers and jobs: (worker rows, job rows)."""


@dataclass(slots=True)
class TakeJob(Request):
    """Lease a job's slice: its new term, or None while another holds it."""

    job: str
    slice: int
    holder: str
    ttl: int


@dataclass(slots=True)
class EndJob(Request):
    """Give a job's slice back with what came of it: whether the term was still ours."""

    job: str
    slice: int
    holder: str
    term: int
    result: str | None
    error: str | None


@dataclass(slots=True)
class ReadSampled(Request):
    """Read when sessions were last counted and how long that took: (time or None, seconds, now)."""

    tenant: str | None


@dataclass(slots=True)
class ReadSchema(Request):
    """Read the revision of the tables: its name or None."""


@dataclass(slots=True)
class CountSessions(Request):
    """Count sessions of a tenant or of each: {tenant: {name: number}}. What is due is counted up to `limit`."""

    tenant: str | None
    limit: int


@dataclass(slots=True)
class StoreSamples(Request):
    """Keep what was counted, in place of what was before in the same ten minutes: when.

    `seconds` is how long the counting took.
    """

    tenant: str | None
    numbers: Mapping[str, Mapping[str, float]]
    totals: Mapping[str, float]
    seconds: float


@dataclass(slots=True)
class CountTransitions(Request):
    """Count the next committed lines of the audit log, `limit` at most, by hour: (number, whether there are more).

    The log is one for all tenants, and so is the place up to which it is counted.
    """

    limit: int


@dataclass(slots=True)
class ReadSamples(Request):
    """Read samples: (last sampled at or None, transitions counted since or None, now, rows, {trigger: number} so far).

    Those from `since` on, or those of the last look.
    """

    tenant: str | None
    names: tuple[str, ...]
    since: datetime | None


@dataclass(slots=True)
class StartWatch(Request):
    """The place behind all that is committed, or the given one if it can be one of this database's.

    None while there is more to prepare: ask again.
    """

    after: Place | None


@dataclass(slots=True)
class ReadTransitions(Request):
    """Read the audit log in the order of commits: (rows, position and id of the last line looked at or None, more).

    At most `limit` lines are looked at; those of others are left out.
    """

    tenant: str | None
    after: Place
    limit: int
    session_id: str | None


@dataclass(slots=True)
class CreateKey(Request):
    """Insert a key to the HTTP API: its row."""

    values: Row
    expires_in: int | None


@dataclass(slots=True)
class GetKey(Request):
    """Read a key to the HTTP API, its digest too: its row with `now`, or None."""

    key_id: str


@dataclass(slots=True)
class AnyKey(Request):
    """Whether there is a key to the HTTP API at all."""


@dataclass(slots=True)
class ListKeys(Request):
    """Read the keys to the HTTP API, of one tenant or all: rows."""

    tenant: str | None


@dataclass(slots=True)
class RevokeKey(Request):
    """Make a key to the HTTP API open nothing any more: its row, or None if there is none."""

    key_id: str
    tenant: str | None


@dataclass(slots=True)
class StampKey(Request):
    """Write that a key to the HTTP API is in use, unless that was written in the last so many seconds."""

    key_id: str
    seconds: int


@dataclass(slots=True)
class ShareSecret(Request):
    """Read a secret that processes share, or make `value` it: the value. Raises DuplicateKey if another just did."""

    name: str
    value: str


@dataclass(slots=True)
class ClaimAttempt(Request):
    """Note that a request under an idempotency key is being carried out: its row, with `claimed`, `now` and `lapsed`.

    It is the caller's to carry out if nobody had the key within `keep` seconds, or, with `repeatable`, whoever had it
    gave no answer within `lapse` seconds; and only with the same digest.
    """

    tenant: str
    caller: str
    key: str
    digest: str
    keep: int
    lapse: int
    repeatable: bool


@dataclass(slots=True)
class AnswerAttempt(Request):
    """Keep the answer of a claimed attempt, or forget the attempt with `status` None: whether it was still the caller's."""

    tenant: str
    caller: str
    key: str
    claimed_at: datetime
    status: int | None = None
    headers: str | None = None
    body: str | None = None


@dataclass(slots=True)
class Expect(OfSession):
    """Lock a session that is at a version and in a phase, for a `Together`: True, or None if it is not."""

    version: int
    phase: str | None


@dataclass(slots=True)
class Together(Request):
    """Meet requests in one transaction, in this order: the answer of each. Raises `Refused`, with nothing done."""

    requests: tuple[Request, ...]


@dataclass(slots=True)
class ReadTogether(Together):
    """The same of reads only."""


@dataclass(slots=True)
class SideBySide(Request):
    """Carry out requests about one session each, in one transaction as far as they go well.

    For each what it is answered, or the error that it would have raised alone: none touches another. What is asked for
    the same session is carried out in the order given.
    """

    requests: tuple[OfSession, ...]


@dataclass(slots=True)
class CallHook(Request):
    """Call a user's function; an async driver awaits what it returns. The answer is its result."""

    hook: Callable[..., Any]
    args: tuple[Any, ...]


@dataclass(slots=True)
class Pause(Request):
    """Wait for so many seconds."""

    seconds: float


@dataclass(slots=True)
class PutGraphCheckpoint(OfSession):
    """Store a graph's checkpoint with the items and values that came with it: the number of its first item.

    None if refused, which it is too where `parent`, whose items and values it shares, is not there as it was any more: its
    place, its needs and its first item. `items` are (needs, content), `values` (name, needs, content); of those, what is
    there already stays.
    """

    place: str
    run_id: str | None
    needs: str | None
    body: str
    items: tuple[tuple[str | None, str], ...]
    values: tuple[tuple[str, str | None, str], ...]
    parent: GraphParent | None
    fence: Fence | None = None


@dataclass(slots=True)
class PutGraphWrites(OfSession):
    """Add a line to the writes of a graph's checkpoint, which may come later: whether it was, or None if refused."""

    place: str
    line: str
    values: tuple[tuple[str, str | None, str], ...]
    fence: Fence | None = None


@dataclass(slots=True)
class ReadGraph(OfSession):
    """Read a graph's checkpoint, or the latest of a namespace (`place` None): (row, {number: item}, {name: value}) or None."""

    namespace: str
    place: str | None


@dataclass(slots=True)
class ReadGraphRows(OfSession):
    """Read several checkpoints by place: ([row], {number: item}, {name: value}); without the rest, where it is not `whole`."""

    places: tuple[str, ...]
    whole: bool = True


@dataclass(slots=True)
class ListGraphPlaces(Request):
    """Read which checkpoints there are: [(session id, place)] in order; of all sessions, those of some runs, or one's.

    A session's are those from one place on, up to another that is not among them, if these are given.
    """

    tenant: str
    session_id: str | None = None
    run_ids: tuple[str, ...] | None = None
    since: str | None = None
    until: str | None = None


@dataclass(slots=True)
class RemoveGraphCheckpoints(OfSession):
    """Remove a graph's checkpoints, and the items and values that no other needs: how many, or None if refused."""

    places: tuple[str, ...]
    fence: Fence | None = None


@dataclass(slots=True)
class CopyGraph(OfSession):
    """Copy all checkpoints to another session: how many; None if that one is refused, -1 if it has some of its own."""

    new_id: str
    fence: Fence | None = None


ASSEMBLED: tuple[type[Request], ...] = (LoadState, GetCheckpoint, ReadTogether, ReadGraph, ReadGraphRows)
"""What is put together of several reads, which have to be of one moment."""

READS: tuple[type[Request], ...] = (
    GetSession,
    GetToken,
    LoadState,
    GetMessages,
    ListSessions,
    GetHistory,
    GetStats,
    ListCheckpoints,
    GetCheckpoint,
    RecentTransitions,
    ListStuck,
    ListApprovals,
    ListConnections,
    CountDue,
    OldestDue,
    ListWorkers,
    ReadSchema,
    ReadSampled,
    CountSessions,
    ReadSamples,
    StartWatch,
    ReadTransitions,
    GetKey,
    AnyKey,
    ListKeys,
    ReadGraph,
    ReadGraphRows,
    ListGraphPlaces,
    ReadTogether,
)
