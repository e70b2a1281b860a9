"""Requests about graphs' checkpoints."""

from dataclasses import dataclass

from lifecycle.operations.requests.base import Fence, OfSession, Request

# A checkpoint as it was seen: its place, its needs and the number of its first item.
GraphParent = tuple[str, str | None, int | None]


@dataclass(slots=True)
class PutGraphCheckpoint(OfSession):
    """Store a graph's checkpoint with the items and values that came with it: the number of its first item.

    None if refused, which it is too where `parent`, whose items and values it shares, is not there as it was any more: its
    place, its needs and its first item. `items` are lines (`lifecycle.graphs`), `values` (name, needs, content); of those,
    what is there already stays. An item stays too where the checkpoint is put once more.
    """

    place: str
    run_id: str | None
    needs: str | None
    body: str
    items: tuple[str, ...]
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
    """Read a graph's checkpoint, or the latest of a namespace (`place` None): (row, {number: line}, {name: value}) or None."""

    namespace: str
    place: str | None


@dataclass(slots=True)
class ReadGraphRows(OfSession):
    """Read several checkpoints by place: ([row], {number: line}, {name: value}); without the rest, where it is not `whole`."""

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
