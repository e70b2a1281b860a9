"""Every error Lifecycle raises, under one root.

A database error is never the type, always the `__cause__`. The tree (a test holds it complete):

    LifecycleError
    ├── InvalidArgument (ValueError)    a parameter is not what the call takes
    │   ├── NotSerializable             a value that JSON cannot give back identically
    │   ├── LimitExceeded               larger than a configured bound
    │   └── InvalidFile                 a backup or archive file is damaged, cut off, or none
    ├── ConfigError                     a key of the configuration is wrong
    ├── NotFound (LookupError)          what the call names is not there
    │   ├── SessionNotFound
    │   ├── CheckpointNotFound
    │   ├── ApprovalNotFound
    │   └── KeyNotFound
    ├── Conflict                        the state of things forbids the call
    │   ├── SessionExists
    │   ├── InvalidTransition
    │   ├── VersionConflict
    │   ├── SessionBusy                 another holder has a live lease
    │   ├── LeaseLost                   this holder's lease was superseded
    │   ├── SessionProtected
    │   ├── MessageExists               the id is taken by a different message
    │   ├── TokenReused                 the retry token belongs to another save
    │   └── ApprovalResolved            somebody decided it already
    ├── SearchTimeout                   a bounded scan ran out of its time
    ├── SchemaOutdated                  the database needs a migration
    ├── FileUnavailable                 a backup or the archive cannot be read or written
    └── StorageUnavailable              the database cannot be reached or failed
"""

from datetime import datetime


class LifecycleError(Exception):
    """Something Lifecycle refused or could not do."""


class InvalidArgument(LifecycleError, ValueError):
    """A parameter is not what the call takes; the message names it and what is allowed."""


class NotSerializable(InvalidArgument):
    """A value is not JSON, so it could not be given back identically.

    `path` leads to the bad value, as in `context.plan[3]`.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class LimitExceeded(InvalidArgument):
    """Something is larger than its bound; nothing was stored and nothing was cut."""

    def __init__(self, what: str, size: int, limit: int, unit: str, key: str) -> None:
        super().__init__(f"{what} is {size:,} {unit}; at most {limit:,} are allowed (config: {key})")
        self.what = what
        self.size = size
        self.limit = limit


class InvalidFile(InvalidArgument):
    """A backup or archive file is not what it should be: damaged, cut off, of another format, or something else.

    `line` counts from 1, or is None where it is the whole file; `field` is the column, as in `sessions.state`.
    """

    def __init__(self, file: str, problem: str, *, line: int | None = None, field: str | None = None) -> None:
        where = [file, *([f"line {line}"] if line is not None else []), *([field] if field else [])]
        super().__init__(f"{': '.join(where)}: {problem}")
        self.file = file
        self.line = line
        self.field = field
        self.problem = problem


class ConfigError(LifecycleError):
    """A configured value is wrong; says the file, the key and what is allowed there."""

    def __init__(self, key: str, problem: str, *, source: str = "configuration") -> None:
        super().__init__(f"{source}: {key}: {problem}")
        self.key = key
        self.problem = problem
        self.source = source


class NotFound(LifecycleError, LookupError):
    """What the call names is not there (or belongs to another tenant, which looks the same)."""


class SessionNotFound(NotFound):
    """No such session."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"no session {session_id!r}")
        self.session_id = session_id


class CheckpointNotFound(NotFound):
    """The session has no such checkpoint."""

    def __init__(self, session_id: str, seq: int) -> None:
        super().__init__(f"session {session_id!r} has no checkpoint {seq}")
        self.session_id = session_id
        self.seq = seq


class ApprovalNotFound(NotFound):
    """The session has no such approval request."""

    def __init__(self, session_id: str, approval_id: str) -> None:
        super().__init__(f"session {session_id!r} has no approval {approval_id!r}")
        self.session_id = session_id
        self.approval_id = approval_id


class KeyNotFound(NotFound):
    """There is no such key to the HTTP API."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"no key {key_id!r}")
        self.key_id = key_id


class Conflict(LifecycleError):
    """The state things are in forbids the call; nothing was changed."""


class SessionExists(Conflict):
    """A session with this id is already there."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id!r} already exists (it may be soft-deleted)")
        self.session_id = session_id


class InvalidTransition(Conflict):
    """The session's state does not allow this; names the state and what it allows."""

    def __init__(self, session_id: str, action: str, state: str, allowed: tuple[str, ...], *, why: str = "") -> None:
        reason = f" ({why})" if why else ""
        can = ", ".join(allowed) or "nothing"
        super().__init__(f"cannot {action} session {session_id!r}: it is {state}{reason}; allowed from here: {can}")
        self.session_id = session_id
        self.action = action
        self.state = state
        self.allowed = allowed


class VersionConflict(Conflict):
    """Somebody changed the session since the version the caller knew."""

    def __init__(self, session_id: str, expected: int, current: int) -> None:
        super().__init__(f"session {session_id!r} is at version {current}, not {expected}: load it again and retry")
        self.session_id = session_id
        self.expected = expected
        self.current = current


class SessionBusy(Conflict):
    """Another holder has a live lease on the session."""

    def __init__(self, session_id: str, holder: str, until: datetime | None) -> None:
        super().__init__(f"session {session_id!r} is leased by {holder!r} until {until}")
        self.session_id = session_id
        self.holder = holder
        self.until = until


class LeaseLost(Conflict):
    """The lease this write was made under is no longer the session's: it ran out, or somebody took over.

    Nothing was written. `current` is the session's epoch where the database was asked, or None.
    """

    def __init__(self, session_id: str, epoch: int, current: int | None = None) -> None:
        where = "its time ran out here" if current is None else f"the session is at epoch {current}"
        super().__init__(f"the lease on session {session_id!r} (epoch {epoch}) is lost: {where}")
        self.session_id = session_id
        self.epoch = epoch
        self.current = current


class SessionProtected(Conflict):
    """The session is protected from removal; pass `force=True` or clear the protection."""

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"session {session_id!r} is protected: pass force=True or update_session(protected=False) first"
        )
        self.session_id = session_id


class MessageExists(Conflict):
    """The message id is taken by a message that says something else."""

    def __init__(self, session_id: str, message_id: str) -> None:
        super().__init__(f"session {session_id!r} already has a different message {message_id!r}")
        self.session_id = session_id
        self.message_id = message_id


class TokenReused(Conflict):
    """The retry token was already used for a save with other content."""

    def __init__(self, session_id: str, token: str) -> None:
        super().__init__(f"session {session_id!r}: retry token {token!r} was used by a save with other content")
        self.session_id = session_id
        self.token = token


class ApprovalResolved(Conflict):
    """The request was already approved, rejected or expired."""

    def __init__(self, approval_id: str, state: str) -> None:
        super().__init__(f"approval {approval_id!r} is already {state}")
        self.approval_id = approval_id
        self.state = state


class SearchTimeout(LifecycleError):
    """A search read for as long as it may; narrow the filters or turn the search index on."""


class SchemaOutdated(LifecycleError):
    """The database's schema is not the one this release works on; says which command to run."""


class FileUnavailable(LifecycleError):
    """A backup or the archive cannot be read or written (no room, no right, not there); nothing was removed for it.

    The operating system's error is the `__cause__`.
    """


class StorageUnavailable(LifecycleError):
    """The database cannot be reached, or failed; the driver's error is the `__cause__`.

    `outcome_unknown` is true when the connection was lost after a write was sent: it may have
    been committed. Read the session before repeating it, or repeat it with the same retry token.
    """

    def __init__(self, problem: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(problem + ("; it is not known whether the write was committed" if outcome_unknown else ""))
        self.outcome_unknown = outcome_unknown
