"""The requests of one call for many sessions: which go in one transaction, and what is tried when that fails.

In a transaction the sessions come in the order of their keys, as everywhere. One in which a statement fails, or waits
for a lock for long, is rolled back and tried again in halves, so that what it ran into is found among n of them in
log n tries. That goes by itself in the end, behind all others, and waits as long as it has to.
"""

import copy
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from psycopg_pool import PoolTimeout

from lifecycle.drivers.combining import MOST_BYTES, NotCommitted
from lifecycle.drivers.postgresql_batch import LOCK_TIMEOUT_MS
from lifecycle.drivers.postgresql_prepared import Batch, Prepared, prepared
from lifecycle.drivers.stepping import is_read
from lifecycle.errors import LifecycleError, SchemaOutdated, StorageUnavailable
from lifecycle.operations.requests import DuplicateKey, Request
from lifecycle.recipes.statement import Single

# What says that the database fails, before anything was tried.
FAILURES: Final = (StorageUnavailable, SchemaOutdated)
# What may come of a try; `outcome` says what it is to whoever asked.
OUTCOMES: Final = (LifecycleError, DuplicateKey, NotCommitted)
# Longer than a whole transaction of another call for many sessions takes: those wait for each other.
_FIRST_PATIENCE_MS: Final = 250


class _Piece(NamedTuple):
    place: int
    request: Any
    single: Single
    statement: Prepared
    values: list[bytes | None]

    @property
    def key(self) -> tuple[str, str]:
        return self.request.tenant, self.request.session_id

    @property
    def size(self) -> int:
        return sum(len(value) for value in self.values if value is not None)


@dataclass(frozen=True, slots=True)
class Part:
    """What goes in one transaction; a statement of it waits for locks for so many milliseconds."""

    pieces: Sequence[_Piece]
    patience: int

    @property
    def batch(self) -> Batch:
        """The statements with their values."""
        return [(piece.statement, piece.values) for piece in self.pieces]

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return not all(is_read(piece.request) for piece in self.pieces)

    def halves(self) -> "list[Part]":
        """The same in two transactions."""
        half = len(self.pieces) // 2
        return [Part(self.pieces[:half], LOCK_TIMEOUT_MS), Part(self.pieces[half:], LOCK_TIMEOUT_MS)]


def steps(requests: Sequence[Any], shared: Mapping[type[Request], Single]) -> Generator[Any, Any, list[Any]]:
    """What came of each request: its answer, or the error to raise for it. What is not `shared` goes by itself.

    Yields a `Part`, to be sent the rows of each of its statements, or a request that goes by itself, to be sent its
    answer; or else the `outcome` of an error that either ran into.
    """
    if len(requests) == 1:
        return [(yield requests[0])]
    answers: list[Any] = [None] * len(requests)
    alone, pieces = [], []
    for place, request in enumerate(requests):
        single = shared.get(type(request))
        if single is None:
            alone.append((place, request))
        else:
            statement = prepared(single.statement(request))
            pieces.append(_Piece(place, request, single, statement, statement.values(single.bind(request))))
    pieces.sort(key=lambda piece: piece.key)
    waiting = deque(_parts(pieces))
    failure: StorageUnavailable | None = None
    while waiting:
        part = waiting.popleft()
        rows = _untried(failure) if failure else (yield part)
        if isinstance(rows, NotCommitted):
            if len(part.pieces) > 1:
                waiting.extendleft(reversed(part.halves()))
            else:
                alone += [(piece.place, piece.request) for piece in part.pieces]
            continue
        if isinstance(rows, StorageUnavailable):
            failure = failure or rows
        for i, piece in enumerate(part.pieces):
            answers[piece.place] = piece.single.read(piece.request, rows[i]) if isinstance(rows, list) else _own(rows)
    for place, request in alone:
        answers[place] = _untried(failure) if failure else (yield request)
        if failure is None and _is_away(answers[place]):
            failure = answers[place]
    return answers


def outcome(asked: Any, error: Exception) -> Exception:
    """What to send for an error that came of what was asked. Raises what is no answer, but means the whole call."""
    if type(error) is LifecycleError:
        raise error  # the manager is closed
    if isinstance(asked, Part) and isinstance(error, StorageUnavailable) and not asked.writes:
        return StorageUnavailable(f"PostgreSQL: {error.__cause__ or error}")
    return error


def untried(requests: Sequence[Any], error: Exception) -> list[Any]:
    """What came of requests where the database could not even be asked: the error, for each its own."""
    return [_own(error) for _ in requests]


def _is_away(answer: Any) -> bool:
    """Whether there was no connection to be had in all the time there is for that: no other request waits as long again."""
    return isinstance(answer, StorageUnavailable) and isinstance(answer.__cause__, PoolTimeout)


def _untried(failure: Exception) -> StorageUnavailable:
    return StorageUnavailable(f"not tried, as others before it failed: {failure}")


def _own(error: Exception) -> Exception:
    """One for each: a traceback grows where an error is raised."""
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    return own


def _parts(pieces: list[_Piece]) -> list[Part]:
    """The pieces in transactions of at most so many bytes each."""
    parts: list[list[_Piece]] = []
    room = 0
    for piece in pieces:
        room -= piece.size
        if not parts or room < 0:
            parts.append([])
            room = MOST_BYTES - piece.size
        parts[-1].append(piece)
    return [Part(some, _FIRST_PATIENCE_MS) for some in parts]
