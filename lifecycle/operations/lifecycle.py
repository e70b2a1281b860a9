"""The transitions of a session, and the signs of life that keep it from expiring."""

from collections.abc import Callable, Sequence
from typing import Any

from lifecycle import states
from lifecycle.errors import InvalidArgument, InvalidTransition, LeaseLost, SessionNotFound, VersionConflict
from lifecycle.models.reads import Session
from lifecycle.operations import rows
from lifecycle.operations.context import Context, check_count
from lifecycle.operations.fencing import Held, fence_of
from lifecycle.operations.requests import CallHook, GetSession, Move, Row, Touch
from lifecycle.operations.typing import Steps

_ATTEMPTS = 20
_TOUCHED_AT_ONCE = 1000


def move(
    context: Context,
    trigger: str,
    session_id: str,
    reason: str | None,
    actor: str | None,
    lease: Held | None,
    expected_version: int | None = None,
) -> Steps[Session]:
    """Fire a trigger: one compare-and-set, and no read before it where no hook wants to see the session."""
    session_id = context.check_id(session_id)
    target = states.transition(trigger).target
    retention = context.policies.retention_map(target) if target in states.TERMINAL else ("{}", None)
    reason = context.check_long(reason, "reason")
    actor = context.check_short(actor, "actor")
    fence = fence_of(context.tenant, session_id, lease)
    hooked = bool(context.hooks.conditions.get(trigger) or context.hooks.before.get(trigger))
    if expected_version is not None:
        check_count(expected_version, "expected_version", 0, 2**63 - 1)
    expected: int | None = None
    current: Row = {}
    for _ in range(_ATTEMPTS):
        seen = (yield from _ask_hooks(context, trigger, session_id)) if hooked else None
        expected = seen if expected_version is None else expected_version
        row = yield Move(
            context.tenant,
            session_id,
            trigger,
            reason,
            actor,
            retention,
            context.policies.max_age_map(),
            expected,
            fence,
        )
        if row is not None:
            moved = rows.session(row)
            for hook in context.hooks.after.get(trigger, ()):
                yield CallHook(logged(hook), (moved,))
            return moved
        current = yield GetSession(context.tenant, session_id)
        if current is None:
            raise SessionNotFound(session_id)
        # Before the rule that nothing need be done. Who released the lease by this very transition has its epoch still.
        if fence is not None and (
            current["lease_epoch"] != fence[1] or current["lease_holder"] not in {fence[0], None}
        ):
            raise LeaseLost(session_id, fence[1], current["lease_epoch"])
        if current["state"] == target:
            return rows.session(current)
        if expected_version is not None and current["version"] != expected_version:
            raise VersionConflict(session_id, expected_version, current["version"])
        if states.moves_to(trigger, current["state"]) is None:
            raise InvalidTransition(session_id, trigger, current["state"], states.allowed(current["state"]))
    raise VersionConflict(session_id, expected or 0, current["version"])


def _ask_hooks(context: Context, trigger: str, session_id: str) -> Steps[int]:
    """Conditions and before-hooks see the session; the version they saw is the one that may be moved."""
    row = yield GetSession(context.tenant, session_id)
    if row is None:
        raise SessionNotFound(session_id)
    if states.moves_to(trigger, row["state"]) is None:
        return int(row["version"])
    seen = rows.session(row)
    for condition in context.hooks.conditions.get(trigger, ()):
        if not (yield CallHook(condition, (seen,))):
            name = getattr(condition, "__name__", "a condition")
            can = states.allowed(seen.state)
            raise InvalidTransition(session_id, trigger, seen.state, can, why=f"refused by {name}")
    for hook in context.hooks.before.get(trigger, ()):
        yield CallHook(hook, (seen,))
    return seen.version


def logged(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Mark an after-hook: the driver logs its failure, as the work is committed already."""
    return AfterHook(hook)


class AfterHook:
    """A hook whose failure undoes nothing."""

    __slots__ = ("hook",)

    def __init__(self, hook: Callable[..., Any]) -> None:
        self.hook = hook

    def __call__(self, *args: Any) -> Any:
        """Call the user's function."""
        return self.hook(*args)


def suspend_session(
    context: Context,
    session_id: str,
    *,
    reason: str | None = None,
    actor: str | None = None,
    lease: Held | None = None,
    expected_version: int | None = None,
) -> Steps[Session]:
    """Put an active session aside and return it; a suspended one is returned as it is.

    Raises `SessionNotFound`, `InvalidTransition`, `LeaseLost`, and `VersionConflict` with `expected_version`.
    """
    return (yield from move(context, "suspend", session_id, reason, actor, lease, expected_version))


def resume_session(
    context: Context,
    session_id: str,
    *,
    reason: str | None = None,
    actor: str | None = None,
    lease: Held | None = None,
    expected_version: int | None = None,
) -> Steps[Session]:
    """Take a suspended session up again and return it; an active one is returned as it is.

    Raises `SessionNotFound`, `InvalidTransition`, `LeaseLost`, and `VersionConflict` with `expected_version`.
    """
    return (yield from move(context, "resume", session_id, reason, actor, lease, expected_version))


def complete_session(
    context: Context,
    session_id: str,
    *,
    reason: str | None = None,
    actor: str | None = None,
    lease: Held | None = None,
    expected_version: int | None = None,
) -> Steps[Session]:
    """Finish a session that reached its goal and return it.

    Raises `SessionNotFound`, `InvalidTransition`, `LeaseLost`, and `VersionConflict` with `expected_version`.
    """
    return (yield from move(context, "complete", session_id, reason, actor, lease, expected_version))


def end_session(
    context: Context,
    session_id: str,
    *,
    reason: str | None = None,
    actor: str | None = None,
    lease: Held | None = None,
    expected_version: int | None = None,
) -> Steps[Session]:
    """Finish a session for any other reason, failure included, and return it.

    Raises `SessionNotFound`, `InvalidTransition`, `LeaseLost`, and `VersionConflict` with `expected_version`.
    """
    return (yield from move(context, "end", session_id, reason, actor, lease, expected_version))


def expire_session(
    context: Context,
    session_id: str,
    *,
    reason: str | None = None,
    actor: str | None = None,
    lease: Held | None = None,
    expected_version: int | None = None,
) -> Steps[Session]:
    """Expire a session now, whatever its deadline, and return it.

    Raises `SessionNotFound`, `InvalidTransition`, `LeaseLost`, and `VersionConflict` with `expected_version`.
    """
    return (yield from move(context, "expire", session_id, reason, actor, lease, expected_version))


def reopen_session(
    context: Context,
    session_id: str,
    *,
    reason: str | None = None,
    actor: str | None = None,
    lease: Held | None = None,
    expected_version: int | None = None,
) -> Steps[Session]:
    """Make an expired session active again, with fresh deadlines, and return it.

    Raises `SessionNotFound`, `InvalidTransition`, `LeaseLost`, and `VersionConflict` with `expected_version`.
    """
    return (yield from move(context, "reopen", session_id, reason, actor, lease, expected_version))


def touch_session(context: Context, session_id: str | Sequence[str]) -> Steps[int]:
    """A sign of life of one session or of many: the number of live ones touched.

    For one id it raises `SessionNotFound` or `InvalidTransition` (it is finished); of many, such ones are passed over.
    """
    if isinstance(session_id, str):
        touched = yield Touch(context.tenant, (context.check_id(session_id),))
        if not touched:
            row = yield GetSession(context.tenant, session_id)
            if row is None:
                raise SessionNotFound(session_id)
            raise InvalidTransition(session_id, "touch", row["state"], states.allowed(row["state"]))
        return 1
    ids = tuple(sorted({context.check_id(one) for one in session_id}))
    total = 0
    for start in range(0, len(ids), _TOUCHED_AT_ONCE):
        total += len((yield Touch(context.tenant, ids[start : start + _TOUCHED_AT_ONCE])))
    return total


def touch_many(context: Context, session_ids: Sequence[str]) -> Steps[list[bool]]:
    """A sign of life of many sessions: for each, in the order given, whether it is live, and so was touched.

    It goes in transactions of 1,000 sessions, a few statements each on every database; what was touched before a failure
    stays so. A session that somebody else has locked is touched behind the others, so that he keeps nobody waiting who
    wants one of those. Raises `InvalidArgument`.
    """
    if isinstance(session_ids, str):
        raise InvalidArgument(f"session_ids must be a list of ids, as in [{session_ids!r}]; touch_session takes one")
    asked = [context.check_id(one, f"session_ids[{i}]") for i, one in enumerate(session_ids)]
    ids = tuple(sorted(set(asked)))
    touched: set[str] = set()
    for start in range(0, len(ids), _TOUCHED_AT_ONCE):
        some = ids[start : start + _TOUCHED_AT_ONCE]
        touched.update((yield Touch(context.tenant, some, passing=True)))
        left = tuple(one for one in some if one not in touched)
        if left:
            touched.update((yield Touch(context.tenant, left)))
    return [one in touched for one in asked]
