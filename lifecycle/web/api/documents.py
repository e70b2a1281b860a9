"""What routes answer, for the OpenAPI document: models, headers, problems with examples, and where to go from there."""

from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel, Field

from lifecycle.web.problems import MEDIA_TYPE, Problem

T = TypeVar("T")
Responses = dict[int | str, dict[str, Any]]


class Items(BaseModel, Generic[T]):
    """A list."""

    items: list[T]


class Touched(BaseModel):
    """How many live sessions were touched."""

    touched: int


class Removed(BaseModel):
    """How many were removed."""

    removed: int


class Changed(BaseModel):
    """How many were changed, or would be."""

    changed: int
    dry_run: bool


class Version(BaseModel):
    """The session's version after a write."""

    version: int


class LeaseTaken(BaseModel):
    """A lease. Send `holder` and `epoch` as `Lease-Holder` and `Lease-Epoch` with what you write under it."""

    session_id: str
    holder: str
    epoch: int
    expires_at: datetime


class Job(BaseModel):
    """A worker's job: who runs a slice of it, and how its last run went."""

    job: str
    slice: int
    holder: str | None
    term: int
    lease_expires_at: datetime | None
    last_started_at: datetime | None
    last_finished_at: datetime | None
    last_result: dict[str, Any] | None
    last_error: str | None


class Worker(BaseModel):
    """A running worker and its last sign of life."""

    worker_id: str
    host: str
    pid: int
    release: str
    state: str
    started_at: datetime
    beat_at: datetime


class Workers(BaseModel):
    """The workers and their jobs."""

    workers: list[Worker]
    jobs: list[Job]


class Trimmed(BaseModel):
    """How many rows were removed."""

    removed: int = Field(examples=[0])


def _problem(status: int, error: str, detail: str, **more: Any) -> tuple[int, str, dict[str, Any]]:
    example = Problem(title=_TITLES[status], status=status, detail=detail, error=error, **more)
    return status, error, example.model_dump(mode="json")


_TITLES: Final = {
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 409: "Conflict",
    412: "Precondition Failed", 413: "Request Entity Too Large", 415: "Unsupported Media Type",
    422: "Unprocessable Entity", 423: "Locked", 429: "Too Many Requests", 503: "Service Unavailable",
    504: "Gateway Timeout",
}  # fmt: skip
_RETRY: Final = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
_ETAG: Final = {"ETag": {"description": "The session's version, quoted.", "schema": {"type": "string"}}}
_LOCATION: Final = {"Location": {"description": "Where it is.", "schema": {"type": "string"}}}
_LINK: Final = {
    "Link": {"description": 'The next page, with `rel="next"`, if there is one.', "schema": {"type": "string"}}
}

_BAD = _problem(400, "InvalidJson", "the body is not JSON: Expecting value at character 0")
_NOT_TAKEN = _problem(
    400, "InvalidHeader",
    "If-Match: DELETE /api/v1/sessions/{session_id} cannot be made to depend on a version; send it without",
)  # fmt: skip
_NO_KEY = _problem(401, "Unauthorized", "this needs a key: send it as Authorization: Bearer KEY")
_NO_RIGHT = _problem(403, "Forbidden", "this needs a key with the scope 'write'")
_TOO_LARGE = _problem(
    413, "LimitExceeded", "title is 300 characters; at most 200 are allowed (config: limits.title_chars)",
    what="title", size=300, limit=200,
)  # fmt: skip
_NOT_JSON = _problem(415, "UnsupportedMediaType", "send the body as application/json")
_INVALID = _problem(422, "InvalidArgument", "order must be asc or desc, not 'up'")
_REUSED = _problem(422, "IdempotencyKeyReused", "Idempotency-Key: 'k-1' was used for another request; take a new one")
_IN_PROGRESS = _problem(
    409, "RequestInProgress", "Idempotency-Key: a request with 'k-1' is being carried out; ask again later"
)
_TOO_MANY = _problem(429, "TooManyRequests", "too many requests: try again in 1 second")
_AWAY = _problem(503, "StorageUnavailable", "the database does not answer", outcome_unknown=False)

_MISSING = _problem(404, "SessionNotFound", "no session 'support-42'", session_id="support-42")
_NO_STATE = _problem(404, "StateNotFound", "session 'support-42' has no saved state")
_NO_CHECKPOINT = _problem(
    404, "CheckpointNotFound", "session 'support-42' has no checkpoint 3", session_id="support-42", seq=3
)
_NO_APPROVAL = _problem(404, "ApprovalNotFound", "session 'support-42' has no approval 'refund-1'")
_EXISTS = _problem(409, "SessionExists", "session 'support-42' already exists (it may be soft-deleted)")
_ILLEGAL = _problem(
    409, "InvalidTransition", "cannot resume session 'support-42': it is completed; allowed from here: nothing",
    session_id="support-42", action="resume", state="completed", allowed=[],
)  # fmt: skip
_LOST = _problem(
    409, "LeaseLost", "the lease on session 'support-42' (epoch 3) is lost: the session is at epoch 4",
    session_id="support-42", epoch=3, current=4,
)  # fmt: skip
_OTHER_VERSION = _problem(
    412, "VersionConflict", "session 'support-42' is at version 8, not 7: load it again and retry",
    session_id="support-42", expected=7, current=8,
)  # fmt: skip
_LEASED = _problem(
    423, "SessionBusy", "session 'support-42' is leased by 'worker-1' until 2026-11-21 13:27:00+00:00",
    session_id="support-42", holder="worker-1", until="2026-11-21T13:27:00Z",
)  # fmt: skip
_PROTECTED = _problem(403, "SessionProtected", "session 'support-42' is protected", session_id="support-42")
_DECIDED = _problem(409, "ApprovalResolved", "approval 'refund-1' is already rejected", state="rejected")
_OTHER_MESSAGE = _problem(409, "MessageExists", "session 'support-42' already has a different message 'm-1'")
_TOKEN = _problem(
    409, "TokenReused", "session 'support-42': retry token 'step-1' was used by a save with other content"
)
_TOO_SLOW = _problem(504, "SearchTimeout", "the search took too long: narrow the filters")

_Problems = tuple[tuple[int, str, dict[str, Any]], ...]

NO_SESSION: Final = (_MISSING,)
NO_STATE: Final = (_MISSING, _NO_STATE)
NO_CHECKPOINT: Final = (_MISSING, _NO_CHECKPOINT)
NO_MESSAGE: Final = (_MISSING, _problem(404, "MessageNotFound", "session 'support-42' has no message 'm-1'"))
NO_LEASE: Final = (_MISSING, _problem(404, "LeaseNotFound", "nobody holds session 'support-42'"))
NO_CONNECTION: Final = (_problem(404, "ConnectionNotFound", "session 'support-42' has no connection 'socket-1'"),)
NO_APPROVAL: Final = (_MISSING, _NO_APPROVAL, _DECIDED)
TAKEN: Final = (_EXISTS,)
LOST: Final = (_LOST,)
MOVED: Final = (_ILLEGAL, _LOST)
STALE: Final = (_OTHER_VERSION,)
BUSY: Final = (_LEASED,)
GUARDED: Final = (_PROTECTED, _LEASED)
OTHER_MESSAGE: Final = (_OTHER_MESSAGE,)
TOKEN: Final = (_TOKEN,)
TIMED_OUT: Final = (_TOO_SLOW,)

NOT_MODIFIED: Final[Responses] = {304: {"description": "It is still the version that you have.", "headers": _ETAG}}
PAGE: Final[Responses] = {200: {"description": "A page.", "headers": _LINK}}


def _links(session_id: str, *operations: str, **parameters: str) -> dict[str, Any]:
    return {
        name: {"operationId": name, "parameters": {"path.session_id": session_id, **parameters}} for name in operations
    }


_ON = (
    "get_session", "update_session", "delete_session", "open_session", "save_state", "replace_state", "load_state",
    "add_messages", "get_messages", "pop_message", "checkpoint", "list_checkpoints", "suspend_session", "resume_session",
    "complete_session", "end_session", "expire_session", "reopen_session", "touch_session", "fork_session", "history",
    "undelete_session", "cleanup_after_delegation", "acquire_lease", "get_lease", "request_approval", "open_connection",
)  # fmt: skip
_ID = "$response.body#/session_id"
_MATCH: Final = {"header.If-Match": "$response.header.ETag"}

CREATED_SESSION: Final[Responses] = {
    201: {"description": "Created.", "headers": _ETAG | _LOCATION, "links": _links(_ID, *_ON)}
}
OPENED: Final[Responses] = {
    200: {"description": "It was there.", "headers": _ETAG, "links": _links(_ID, *_ON)},
    201: {
        "description": "Created.", "headers": _ETAG | _LOCATION, "links": _links(_ID, *_ON),
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Session"}}},
    },
}  # fmt: skip
CHANGED: Final[Responses] = {200: {"description": "The session as it is now.", "headers": _ETAG}}
TAGGED: Final[Responses] = {
    200: {
        "description": "The saved state.", "headers": _ETAG,
        "links": _links("$request.path.session_id", "save_state", "replace_state", **_MATCH),
    }
}  # fmt: skip
SAVED: Final[Responses] = {
    200: {
        "description": "Saved.", "headers": _ETAG,
        "links": _links("$request.path.session_id", "load_state")
        | _links("$request.path.session_id", "save_state", "update_session", **_MATCH),
    }
}  # fmt: skip
MADE_MESSAGES: Final[Responses] = {
    201: {
        "description": "Added.",
        "links": _links(
            "$request.path.session_id", "delete_message", **{"path.message_id": "$response.body#/message_id"}
        )
        | _links("$request.path.session_id", "get_messages", "pop_message"),
    }
}
MADE_CHECKPOINT: Final[Responses] = {
    201: {
        "description": "Made.", "headers": _LOCATION,
        "links": _links(
            "$request.path.session_id", "restore_checkpoint", "get_checkpoint", **{"path.seq": "$response.body#/seq"}
        ),
    }
}  # fmt: skip
TOOK_LEASE: Final[Responses] = {
    201: {
        "description": "It is yours.", "headers": _LOCATION,
        "links": _links(
            "$request.path.session_id", "renew_lease", "release_lease", "save_state", "add_messages", "checkpoint",
            **{"header.Lease-Holder": "$response.body#/holder", "header.Lease-Epoch": "$response.body#/epoch"},
        ),
    }
}  # fmt: skip
ASKED: Final[Responses] = {
    201: {
        "description": "It waits for a decision.", "headers": _LOCATION,
        "links": _links(
            "$request.path.session_id", "resolve_approval", **{"path.approval_id": "$response.body#/approval_id"}
        ),
    }
}  # fmt: skip
CONNECTED: Final[Responses] = {
    201: {
        "description": "Registered.", "headers": _LOCATION,
        "links": _links(
            "$request.path.session_id", "beat_connection", "close_connection",
            **{"path.connection_id": "$response.body#/connection_id"},
        ),
    }
}  # fmt: skip


def read(*more: _Problems | Responses) -> Responses:
    """What a route that reads answers."""
    return _responses((_BAD, _NOT_TAKEN, _NO_KEY, _NO_RIGHT, _INVALID, _TOO_MANY, _AWAY), more)


def write(*more: _Problems | Responses) -> Responses:
    """What a route that writes answers."""
    always = (_BAD, _NOT_TAKEN, _NO_KEY, _NO_RIGHT, _TOO_LARGE, _NOT_JSON, _INVALID, _TOO_MANY, _AWAY)
    return _responses(always, more)


def post(*more: _Problems | Responses) -> Responses:
    """What a POST answers: with a key, it may be one that is in use."""
    return write((_REUSED, _IN_PROGRESS), *more)


def _responses(always: _Problems, more: tuple[_Problems | Responses, ...]) -> Responses:
    found: Responses = {}
    problems = list(always)
    for one in more:
        if isinstance(one, dict):
            found |= one
        else:
            problems += one
    for status, error, example in problems:
        known = found.setdefault(
            status, {"content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}}}
        )
        known["content"][MEDIA_TYPE]["examples"][error] = {"value": example}
        known["description"] = ", ".join(f"`{name}`" for name in known["content"][MEDIA_TYPE]["examples"])
        if status in {423, 429, 503}:
            known["headers"] = _RETRY
    return found
