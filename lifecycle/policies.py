"""How long sessions may idle, live and be kept, and which checkpoints, per kind: plain values, no SQL, no clock.

A `Policy` speaks for one kind of session, `Policies` for all of them. Limits are whole seconds; None is never.
Deadlines are stamped into rows from here; a sweep or a transition that meets many kinds in one statement takes
the limits as a JSON map from kind to seconds, made once.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Final

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
COUNTS: Final = frozenset({"checkpoints_keep_last"})
"""The fields of a `Policy` that are numbers of things, None for all of them; the others are durations."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Policy:
    """The limits of one kind of session, each in seconds (at least 1), or None for never; `COUNTS` apart.

    Raises ValueError for a limit that is neither.
    """

    idle_active: int | None = 24 * _HOUR
    """Without activity for this long, an active session expires."""
    idle_suspended: int | None = 30 * _DAY
    """Without activity for this long, a suspended session expires."""
    max_age: int | None = None
    """This long after its creation a session expires, however busy."""
    retention_completed: int | None = 30 * _DAY
    """A completed session is removed this long after it ended."""
    retention_ended: int | None = 30 * _DAY
    """An ended session is removed this long after it ended."""
    retention_expired: int | None = 30 * _DAY
    """An expired session is removed this long after it expired."""
    ghosts: int | None = 15 * _MINUTE
    """A session nothing was ever stored in is removed this long after its creation."""
    checkpoints_keep_last: int | None = None
    """So many of a session's newest checkpoints are kept, a number; None for all of them."""
    checkpoints_keep_every: int | None = None
    """Of the older ones, the first of every so many seconds is kept too; None for none of them."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                unit, none = ("a number", "all") if limit.name in COUNTS else ("whole seconds", "never")
                raise ValueError(f"{limit.name} must be {unit}, at least 1, or None for {none}; not {value!r}")

    def idle(self, state: str) -> int | None:
        """Return the seconds without activity after which a session in `state` expires.

        None for never, which is so for every terminal state. Raises ValueError for a name that is no state.
        """
        match state:
            case "active":
                return self.idle_active
            case "suspended":
                return self.idle_suspended
            case "completed" | "ended" | "expired":
                return None
        raise _no_state(state)

    def retention(self, state: str) -> int | None:
        """Return the seconds a session that ended in `state` is kept.

        None for ever, which is so while it is active or suspended. Raises ValueError for a name that is no state.
        """
        match state:
            case "completed":
                return self.retention_completed
            case "ended":
                return self.retention_ended
            case "expired":
                return self.retention_expired
            case "active" | "suspended":
                return None
        raise _no_state(state)

    def superseded(self, checkpoints: Sequence[tuple[int, datetime]]) -> list[int]:
        """Return which of a session's checkpoints are to go: their seqs, oldest first.

        `checkpoints` are all there are, as (seq, time of creation) in order of seq. The times are looked at only
        where `checkpoints_keep_every` is set. Periods are counted from 1970 in UTC, and the first checkpoint of one
        is the one of the lowest seq: no later one takes its place, so that what was kept as the first stays kept.
        """
        if self.checkpoints_keep_last is None:
            return []
        older = checkpoints[: -self.checkpoints_keep_last]
        if self.checkpoints_keep_every is None:
            return [seq for seq, _ in older]
        period = timedelta(seconds=self.checkpoints_keep_every)
        firsts: dict[int, int] = {}
        for seq, created_at in older:
            firsts.setdefault((created_at - _EPOCH) // period, seq)
        kept = set(firsts.values())
        return [seq for seq, _ in older if seq not in kept]


@dataclass(frozen=True)
class Policies:
    """Every kind's policy, and the default for the kinds that have none of their own."""

    default: Policy = field(default_factory=Policy)
    kinds: Mapping[str, Policy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A copy: the maps below are made once, so the kinds must not change under them.
        object.__setattr__(self, "kinds", dict(self.kinds))

    def for_kind(self, kind: str) -> Policy:
        """Return the policy of `kind`: its own, or the default."""
        return self.kinds.get(kind, self.default)

    def retention_map(self, state: str) -> tuple[str, int | None]:
        """Return (JSON object text from kind to seconds kept in terminal `state`, the default's seconds).

        `never` is null in the JSON and None for the default; a kind that is not in the JSON has the default.
        The same strings come back on every call. Raises ValueError for a state that is not terminal.
        """
        try:
            return self._retention_maps[state]
        except KeyError:
            allowed = ", ".join(self._retention_maps)
            raise ValueError(f"{state!r} is not a terminal state; those are {allowed}") from None

    def max_age_map(self) -> tuple[str, int | None]:
        """Return (JSON object text from kind to its `max_age` in seconds, the default's), as `retention_map` does."""
        return self._max_age_map

    @cached_property
    def _retention_maps(self) -> dict[str, tuple[str, int | None]]:
        def of(state: str) -> tuple[str, int | None]:
            return self._map(lambda policy: policy.retention(state))

        return {state: of(state) for state in ("completed", "ended", "expired")}

    @cached_property
    def _max_age_map(self) -> tuple[str, int | None]:
        return self._map(lambda policy: policy.max_age)

    def _map(self, limit: Callable[[Policy], int | None]) -> tuple[str, int | None]:
        seconds = {kind: limit(policy) for kind, policy in self.kinds.items()}
        return json.dumps(seconds, sort_keys=True, separators=(",", ":")), limit(self.default)


def _no_state(state: str) -> ValueError:
    return ValueError(f"{state!r} is not a state; those are active, suspended, completed, ended, expired")
