"""The checkpoints of a graph: stored with what they share, read, listed, copied, removed."""

from collections.abc import Sequence
from typing import Any

from lifecycle import states
from lifecycle.errors import InvalidArgument, LimitExceeded, SessionNotFound
from lifecycle.operations.context import Context
from lifecycle.operations.fencing import Held, fence_of
from lifecycle.operations.refusal import explain
from lifecycle.operations.requests import (
    CopyGraph,
    GraphParent,
    ListGraphPlaces,
    PutGraphCheckpoint,
    PutGraphWrites,
    ReadGraph,
    ReadGraphRows,
    RemoveGraphCheckpoints,
    Row,
)
from lifecycle.operations.typing import Steps

Values = Sequence[tuple[str, str | None, str]]


def put_graph_checkpoint(
    context: Context,
    session_id: str,
    place: str,
    *,
    body: str,
    needs: str | None,
    items: Sequence[str],
    values: Values,
    run_id: str | None = None,
    parent: GraphParent | None = None,
    lease: Held | None = None,
) -> Steps[int | None]:
    """Store a checkpoint at a place of an active or suspended session: the number of its first new item.

    None where `parent`, whose items and values it shares, is not there as it was any more.
    Raises `SessionNotFound`, `InvalidTransition`, `SessionBusy`, `LeaseLost`, `LimitExceeded`.
    """
    session_id = context.check_id(session_id)
    fence = fence_of(context.tenant, session_id, lease)
    for content in (body, *items, *(content for *_, content in values)):
        _check_size(context, content)
    first = yield PutGraphCheckpoint(
        context.tenant,
        session_id,
        context.check_id(place, "checkpoint_ns and checkpoint_id"),
        context.check_short(run_id, "run_id"),
        needs,
        body,
        tuple(items),
        tuple(values),
        parent,
        fence,
    )
    if first is None:
        if parent is not None:
            rows, *_ = yield ReadGraphRows(context.tenant, session_id, (parent[0],), False)
            if [(row["place"], row["needs"], row["first_item"]) for row in rows] != [parent]:
                return None
        yield from explain(context, session_id, "put a checkpoint into", needs=states.LIVE, fence=fence)
    return int(first)


def put_graph_writes(
    context: Context, session_id: str, place: str, *, line: str, values: Values, lease: Held | None = None
) -> Steps[None]:
    """Add a line to the writes of the checkpoint at a place. Raises what `put_graph_checkpoint` raises."""
    session_id = context.check_id(session_id)
    fence = fence_of(context.tenant, session_id, lease)
    for content in (line, *(content for *_, content in values)):
        _check_size(context, content)
    place = context.check_id(place, "checkpoint_ns and checkpoint_id")
    done = yield PutGraphWrites(context.tenant, session_id, place, line, tuple(values), fence)
    if done is None:
        yield from explain(context, session_id, "put writes into", needs=states.LIVE, fence=fence)


def read_graph(
    context: Context, session_id: str, namespace: str, place: str | None
) -> Steps[tuple[Row, dict[int, str], dict[str, Row]] | None]:
    """The checkpoint at a place, or the latest of a namespace, with the items and values that it needs."""
    found: tuple[Row, dict[int, str], dict[str, Row]] | None
    found = yield ReadGraph(context.tenant, context.check_id(session_id), namespace, place)
    return found


def read_graph_rows(
    context: Context, session_id: str, places: Sequence[str]
) -> Steps[tuple[list[Row], dict[int, str], dict[str, Row]]]:
    """Those of the checkpoints at some places that are there, with what they need."""
    found: tuple[list[Row], dict[int, str], dict[str, Row]]
    found = yield ReadGraphRows(context.tenant, context.check_id(session_id), tuple(places))
    return found


def list_graph_places(
    context: Context,
    session_id: str | None = None,
    *,
    run_ids: Sequence[str] | None = None,
    since: str | None = None,
    until: str | None = None,
) -> Steps[list[tuple[str, str]]]:
    """The session and the place of each checkpoint: of all, of one session, or of some runs."""
    of = None if session_id is None else context.check_id(session_id)
    runs = None if run_ids is None else tuple(run_ids)
    places: list[tuple[str, str]] = yield ListGraphPlaces(context.tenant, of, runs, since, until)
    return places


def remove_graph_checkpoints(
    context: Context, session_id: str, places: Sequence[str], *, lease: Held | None = None
) -> Steps[int]:
    """Remove checkpoints and what no other needs; how many there were. Raises `SessionBusy`, `LeaseLost`."""
    session_id = context.check_id(session_id)
    fence = fence_of(context.tenant, session_id, lease)
    removed = yield RemoveGraphCheckpoints(context.tenant, session_id, tuple(places), fence)
    if removed is None:
        try:
            yield from explain(context, session_id, "remove checkpoints of", needs=states.STATES, fence=fence)
        except SessionNotFound:
            return 0
    return int(removed)


def copy_graph(context: Context, session_id: str, new_id: str, *, lease: Held | None = None) -> Steps[int]:
    """Copy all checkpoints into another session, which is there and has none; how many.

    Raises `InvalidArgument` where it has some, `SessionNotFound`, `InvalidTransition`, `SessionBusy`, `LeaseLost`.
    """
    session_id, new_id = context.check_id(session_id), context.check_id(new_id)
    fence = fence_of(context.tenant, new_id, lease)
    copied = yield CopyGraph(context.tenant, session_id, new_id, fence)
    if copied is None:
        yield from explain(context, new_id, "copy checkpoints into", needs=states.LIVE, fence=fence)
    if copied < 0:
        raise InvalidArgument(f"thread {new_id!r} has checkpoints of its own: copy into one that has none")
    return int(copied)


def _check_size(context: Context, content: Any) -> None:
    limit = context.limits.document_bytes
    if len(content) * 4 > limit and (size := len(content.encode())) > limit:
        raise LimitExceeded("a value of the graph's state", size, limit, "bytes", "limits.document_bytes")
