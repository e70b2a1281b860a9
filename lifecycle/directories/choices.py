"""What of a directory is to go, and how the limits for it are written."""

from collections.abc import Iterable

from lifecycle.directories import layout
from lifecycle.directories.guard import Guard
from lifecycle.directories.view import DiskSession, View
from lifecycle.durations import parse_duration
from lifecycle.errors import InvalidArgument

Duration = str | int


def stale(now: View, *, before: float, kinds: frozenset[str], guard: Guard) -> list[DiskSession]:
    """The sessions with a key of these kinds in which nothing happened since a time, and that may go."""
    return [
        one
        for one in now.sessions.values()
        if not one.orphan
        and one.kind in kinds
        and (touched := one.touched) is not None
        and touched < before
        and guard.reason(now.agent.agent_id, one.session_id, one.keys) is None
    ]


def lost(now: View, *, before: float, guard: Guard) -> list[DiskSession]:
    """The sessions without a key that did not change since a time, and that may go."""
    return [
        one
        for one in now.sessions.values()
        if one.orphan
        and (touched := one.touched) is not None
        and touched < before
        and guard.reason(now.agent.agent_id, one.session_id, ()) is None
    ]


def checked_kinds(kinds: Iterable[str]) -> frozenset[str]:
    """The kinds that were asked for, all of them for none. Raises `InvalidArgument` for an unknown one."""
    wanted = frozenset([kinds] if isinstance(kinds, str) else kinds)
    if unknown := wanted - set(layout.KINDS):
        raise InvalidArgument(f"kind must be one of {', '.join(layout.KINDS)}; not {', '.join(sorted(unknown))}")
    return wanted or frozenset(layout.KINDS)


def seconds(value: Duration, name: str) -> int:
    """A duration in seconds. Raises `InvalidArgument`."""
    found = seconds_or_never(value, name)
    if found is None:
        raise InvalidArgument(f"{name}: never is not allowed here; give a duration such as 60m or 30d")
    return found


def seconds_or_never(value: Duration, name: str) -> int | None:
    """A duration in seconds, None for never. Raises `InvalidArgument`."""
    try:
        return parse_duration(value)
    except ValueError as error:
        raise InvalidArgument(f"{name} {error}") from error
