"""What a read and a write do about the cache, for both kinds of driver: generators that yield what they need.

They yield an `Ask` for the cache, whose failure is thrown in, or the request itself, for the database.
"""

from collections.abc import Generator
from typing import Any, Final

from lifecycle.cache import commands, entries
from lifecycle.cache.cache import Cache
from lifecycle.cache.links import CacheBusy, CacheFailure, CacheRefusal
from lifecycle.cache.touched import HARMLESS, Touched, possibly_touched, touched
from lifecycle.errors import LifecycleError, StorageUnavailable
from lifecycle.operations import requests as r

Steps = Generator[Any, Any, Any]
_STRANGE: Final = "the answer is not that of a Valkey or Redis server"
# Keys of one command that drops.
_AT_ONCE: Final = 1000


def steps_for(cache: Cache, request: Any) -> Steps | None:
    """How to meet a request, or None for one that the cache has nothing to do with."""
    kind = type(request)
    form = entries.FORMS.get(kind)
    if form is not None:
        return None if kind is r.GetSession and request.deleted else _read(cache, form, request)
    if kind is r.SideBySide:
        return _write_side_by_side(cache, request)
    return None if kind in HARMLESS else _write(cache, request)


def _read(cache: Cache, form: Any, request: Any) -> Steps:
    key = commands.key_of(form.kind, request.tenant, request.session_id)
    token, generations = None, b""
    if cache.outage.over:
        row, token, generations = yield from _ask(cache, form, request, key)
        if row is not None:
            return row
    else:
        cache.counts.passed += 1
    before = _before(cache, key)
    row = yield request
    _learn(cache, key, before, None if row is None else row["version"])
    if token is not None and row is not None:
        ttl = form.ttl(row, cache.settings.ttl)
        yield from _fill(cache, form.pack(request, row, generations), key, token, ttl)
    return row


def _ask(cache: Cache, form: Any, request: Any, key: bytes) -> Steps:
    """What the cache has: (row, None, b""), or (None, token and generations to fill with, if there are)."""
    generation = commands.generation_of(request.tenant)
    bad = None
    # What was dropped from here is not looked for: a claim says as well if somebody has filled it since.
    if not (key in cache.cold and cache.fullness.may_fill()):
        try:
            found, *told = yield commands.look(key, generation)
        except CacheFailure as failure:
            _failed(cache, failure)
            return None, None, b""
        except (ValueError, TypeError):
            _failed(cache, CacheFailure(_STRANGE))
            return None, None, b""
        row = _believed(cache, form, request, key, found, told)
        if row is not None:
            return row, None, b""
        bad = found if isinstance(found, bytes) and not commands.is_token(found) else None
        cache.counts.rejected += bad is not None
        if not cache.fullness.may_fill():
            cache.counts.misses += 1
            return None, None, b""
    cache.cold.pop(key, None)
    return (yield from _claim(cache, form, request, key, generation, bad))


def _claim(cache: Cache, form: Any, request: Any, key: bytes, generation: bytes, bad: bytes | None) -> Steps:
    """As `_ask`: leave a token, or be told what came there meanwhile."""
    try:
        found, *told = yield commands.claim(key, generation, bad)
    except CacheRefusal as refusal:
        cache.counts.failures += 1
        cache.fullness.refused(refusal)
    except CacheFailure as failure:
        _failed(cache, failure)
    except (ValueError, TypeError):
        _failed(cache, CacheFailure(_STRANGE))
    else:
        row = None if commands.is_token(found) else _believed(cache, form, request, key, found, told)
        if row is not None:
            return row, None, b""
        cache.counts.misses += 1
        if commands.is_token(found):
            return None, found, b"".join(one for one in told if isinstance(one, bytes))
    return None, None, b""


def _believed(cache: Cache, form: Any, request: Any, key: bytes, found: Any, told: list[Any]) -> Any:
    """The row of an entry that is whole and not older than what this process has seen, or None."""
    if not isinstance(found, bytes) or not all(isinstance(one, bytes) for one in told):
        return None
    row = entries.read(form, request, found, b"".join(told))
    if row is None or row["version"] < (cache.newest.get(key) or 0):
        return None
    cache.newest.saw(key, row["version"])
    cache.newest.saw(_twin(key), row["version"])
    cache.counts.hits += 1
    return row


def _fill(cache: Cache, entry: bytes, key: bytes, token: bytes, ttl: int) -> Steps:
    if len(entry) > cache.settings.max_bytes or not cache.outage.over:
        return
    try:
        done = yield commands.fill(key, token, entry, ttl)
    except CacheRefusal as refusal:
        cache.counts.failures += 1
        cache.fullness.refused(refusal)
    except CacheFailure as failure:
        _failed(cache, failure)
    else:
        cache.counts.fills += bool(done)
        if done:
            cache.fullness.took()


def _write(cache: Cache, request: Any) -> Steps:
    key = None
    if isinstance(request, r.OfSession):
        named = request.new_id if isinstance(request, r.ForkSession) else request.session_id
        key = commands.key_of(b"s", request.tenant, named)
    before = (None, None) if key is None else _before(cache, key)
    try:
        answer = yield request
    except (LifecycleError, r.DuplicateKey) as error:
        if isinstance(error, StorageUnavailable) and error.outcome_unknown:
            cache.uncertain(possibly_touched(request).keys)
        elif isinstance(request, r.OfSession) or (isinstance(request, r.DeleteSessions) and not request.descendants):
            # Refused for what the database holds, which may not be what the cache says.
            yield from _drop(cache, possibly_touched(request))
        raise
    except BaseException:
        # Interrupted or cancelled: the write may be under way still.
        cache.uncertain(possibly_touched(request).keys)
        raise
    found = touched(request, answer)
    for (tenant, session_id), version in found.versions:
        own = commands.key_of(b"s", tenant, session_id)
        _learn(cache, own, before if own == key else (None, None), version)
    yield from _drop(cache, found)
    return answer


def _write_side_by_side(cache: Cache, request: r.SideBySide) -> Steps:
    """As `_write`, for each request by what it was answered. What is read among them, the database reads."""
    before = {}
    for one in request.requests:
        key = commands.key_of(b"s", one.tenant, one.session_id)
        before[key] = _before(cache, key)
    try:
        answers = yield request
    except BaseException:
        cache.uncertain(possibly_touched(request).keys)
        raise
    for one, answer in zip(request.requests, answers, strict=True):
        if isinstance(answer, StorageUnavailable) and answer.outcome_unknown:
            cache.uncertain(possibly_touched(r.SideBySide((one,))).keys)
    found = touched(request, answers)
    for session, version in found.versions:
        key = commands.key_of(b"s", *session)
        _learn(cache, key, before[key], version)
    yield from _drop(cache, found)
    return answers


def _drop(cache: Cache, found: Touched) -> Steps:
    if not found.keys:
        return
    if not cache.outage.over:
        cache.outage.owe(found.keys)
        return
    try:
        for start in range(0, len(found.keys), _AT_ONCE):
            yield commands.drop(found.keys[start : start + _AT_ONCE])
        cache.counts.drops += 1
        cache.cooled(found.keys)
    except CacheFailure as failure:
        # Owed before anybody here may find that the cache works again.
        cache.outage.failed(failure, found.keys)
        cache.counts.failures += 1
    except BaseException:
        cache.outage.owe(found.keys)
        raise


def _failed(cache: Cache, failure: CacheFailure) -> None:
    if isinstance(failure, CacheBusy):
        cache.counts.passed += 1
        return
    cache.counts.failures += 1
    cache.outage.failed(failure)


def _twin(key: bytes) -> bytes:
    return (b"l" if key[:1] == b"s" else b"s") + key[1:]


def _before(cache: Cache, key: bytes) -> tuple[Any, Any]:
    return cache.newest.get(key), cache.newest.get(_twin(key))


def _learn(cache: Cache, key: bytes, before: tuple[Any, Any], version: int | None) -> None:
    cache.newest.learn(key, before[0], version)
    # A state that is not there says nothing of its session.
    if version is not None or key[:1] == b"s":
        cache.newest.learn(_twin(key), before[1], version)
