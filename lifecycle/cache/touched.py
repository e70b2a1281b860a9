"""What a write changes of what is cached: which sessions, and whether their saved states too.

A message changes its session's row only, so that states stay cached through a conversation. The beats of leases drop
nothing: a leased session's row is kept for seconds only. A request that is not known here may change anything, so it
drops everything.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from lifecycle.cache.commands import EVERYTHING, generation_of, key_of
from lifecycle.operations import requests as r

Key = tuple[str, str]
_REMOVING: Final = frozenset({"prune_sessions", "delete_ghosts"})


@dataclass(slots=True)
class Touched:
    """What to drop, and what the write tells of versions: that of each session it names, None for one that is gone."""

    keys: tuple[bytes, ...] = ()
    versions: tuple[tuple[Key, int | None], ...] = ()


NOTHING: Final = Touched()


def touched(request: Any, answer: Any) -> Touched:
    """What a request changed that was answered so."""
    return _WRITES.get(type(request), _unknown)(request, answer)


def possibly_touched(request: Any) -> Touched:
    """What a request may have changed whose outcome is not known."""
    if isinstance(request, r.OfSession | r.Together | r.SideBySide):
        return Touched(touched(request, None).keys)
    match request:
        case r.Touch():
            return touched(request, request.session_ids)
        case r.DeleteSessions(descendants=False):
            return Touched(both(request.keys))
        case r.SweepBatch():
            return Touched((_scope(request.due.tenant),))
        case r.ClaimSessions() | r.Restamp():
            return Touched((_scope(request.tenant),))
    return Touched((EVERYTHING,))


def both(keys: Iterable[Key]) -> tuple[bytes, ...]:
    """The keys of sessions' rows and states."""
    return tuple(key_of(kind, *key) for key in keys for kind in (b"s", b"l"))


def _scope(tenant: str | None) -> bytes:
    return EVERYTHING if tenant is None else generation_of(tenant)


def _unknown(_request: Any, _answer: Any) -> Touched:
    return Touched((EVERYTHING,))


def _own(request: Any) -> tuple[Key]:
    return ((request.tenant, request.session_id),)


def _row(request: Any, _answer: Any) -> Touched:
    return Touched((key_of(b"s", request.tenant, request.session_id),))


def _whole(request: Any, answer: Any) -> Touched:
    """The session and its state, where the answer is the new version, a row with it, or something else."""
    version = answer.get("version") if isinstance(answer, dict) else answer
    known = isinstance(version, int) and not isinstance(version, bool) and version > 0
    return Touched(both(_own(request)), ((_own(request)[0], version),) if known else ())


def _drop_all(request: Any, _answer: Any) -> Touched:
    return Touched(both(_own(request)))


def _soft(request: r.SoftDelete, answer: Any) -> Touched:
    if answer is not None and request.hide:
        return Touched(both(_own(request)), ((_own(request)[0], None),))
    return _whole(request, answer)


def _fork(request: r.ForkSession, answer: Any) -> Touched:
    new = (request.tenant, request.new_id)
    return Touched(both((new,)), ((new, answer["version"]),) if isinstance(answer, dict) else ())


def _copied(request: r.CopyGraph, _answer: Any) -> Touched:
    return Touched((key_of(b"s", request.tenant, request.new_id),))


def _touch(request: r.Touch, answer: Any) -> Touched:
    return Touched(tuple(key_of(b"s", request.tenant, session_id) for session_id in answer or ()))


def _leased(request: r.AcquireLease, answer: Any) -> Touched:
    # The state too, so that whoever takes a session over begins with what the database holds.
    return _row(request, answer) if answer is None else _drop_all(request, answer)


def _claimed(_request: r.ClaimSessions, answer: Any) -> Touched:
    # Both, as when a lease is taken.
    keys = [(row["tenant"], row["session_id"]) for row in answer]
    return Touched(both(keys), tuple(zip(keys, (row["version"] for row in answer), strict=True)))


def _deleted(request: r.DeleteSessions, answer: Any) -> Touched:
    keys = both(request.keys)
    if request.descendants and answer != len(request.keys):
        # Whose ids are not told: all of the tenants' entries are outdated.
        keys += tuple({generation_of(tenant) for tenant, _ in request.keys})
    return Touched(keys, tuple((key, None) for key in request.keys))


def _swept(request: r.SweepBatch, answer: Any) -> Touched:
    if not answer or request.due.sweep == "reap_connections":
        return NOTHING
    if not isinstance(answer, r.SweptIds):
        return Touched((_scope(request.due.tenant),))
    gone = tuple((key, None) for key in answer.keys) if request.due.sweep in _REMOVING else ()
    return Touched(both(answer.keys), gone)


def _restamped(request: r.Restamp, answer: Any) -> Touched:
    return NOTHING if request.dry_run or not answer[1] else Touched((_scope(request.tenant),))


def _together(request: r.Together | r.SideBySide, answer: Any) -> Touched:
    answers = answer if isinstance(answer, list) else [None] * len(request.requests)
    parts = [
        # Refused for what the database holds, which may not be what the cache says.
        touched(one, None if isinstance(own, Exception) else own)
        for one, own in zip(request.requests, answers, strict=True)
        if type(one) not in HARMLESS
    ]
    keys, versions = (
        tuple(chain.from_iterable(getattr(part, name) for part in parts)) for name in ("keys", "versions")
    )
    return Touched(keys, versions)


_WRITES: Final[dict[type[Any], Callable[[Any, Any], Touched]]] = {
    r.CreateSession: _whole,
    r.SaveState: _whole,
    r.SaveEdited: _whole,
    r.Move: _whole,
    r.UpdateSession: _whole,
    r.RestoreCheckpoint: _whole,
    r.SoftDelete: _soft,
    r.ForkSession: _fork,
    r.AcquireLease: _leased,
    r.RequestApproval: _drop_all,
    r.ResolveApproval: _drop_all,
    r.AddMessages: _row,
    r.AddMissingMessages: _row,
    r.RemoveMessage: _row,
    r.ClearMessages: _row,
    r.PutGraphCheckpoint: _row,
    r.PutGraphWrites: _row,
    r.RemoveGraphCheckpoints: _row,
    r.CopyGraph: _copied,
    r.Together: _together,
    r.SideBySide: _together,
    r.MakeCheckpoint: _row,
    r.OpenConnection: _row,
    r.BeatConnection: _row,
    r.ReleaseLease: _row,
    r.Touch: _touch,
    r.ClaimSessions: _claimed,
    r.DeleteSessions: _deleted,
    r.SweepBatch: _swept,
    r.Restamp: _restamped,
}

# What changes nothing that is cached, or no more than a beat does.
HARMLESS: Final[frozenset[type[Any]]] = frozenset(
    {
        *r.READS,
        r.CreateSessions,  # there is nothing about a session before it is made
        r.CloseConnection,
        r.Expect,
        r.RenewLeases,
        r.Trim,
        r.BeatWorker,
        r.TakeJob,
        r.EndJob,
        r.StoreSamples,
        r.CountTransitions,
        r.EraseArchived,
        r.CreateKey,
        r.RevokeKey,
        r.StampKey,
        r.ShareSecret,
        r.ClaimAttempt,
        r.AnswerAttempt,
        r.CallHook,
        r.Pause,
    }
)
