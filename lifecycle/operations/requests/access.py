"""Requests about keys, secrets and attempts of callers over HTTP."""

from dataclasses import dataclass
from datetime import datetime

from lifecycle.operations.requests.base import Request, Row


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
