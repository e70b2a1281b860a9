"""Removing checkpoints and copying threads."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from langgraph.checkpoint.serde.base import SerializerProtocol

from lifecycle.adapters.langgraph.calling import Asking, ask
from lifecycle.adapters.langgraph.rows import Read, read
from lifecycle.adapters.langgraph.thread import Thread
from lifecycle.adapters.langgraph.values import Found
from lifecycle.adapters.langgraph.writing import opened
from lifecycle.errors import InvalidArgument
from lifecycle.graphs import parted, place

_STRATEGIES = ("keep_latest", "delete")
_PAGE = 40


def delete_thread(thread: Thread) -> Asking[None]:
    """Remove the session."""
    yield ask("delete_session", thread.thread_id)


def delete_for_runs(named: Callable[[str], Thread], run_ids: Sequence[str]) -> Asking[None]:
    """Remove the checkpoints of runs, thread by thread."""
    if not run_ids:
        return
    found = yield ask("places", run_ids=list(run_ids))
    by_thread: defaultdict[str, list[str]] = defaultdict(list)
    for thread_id, where in found:
        by_thread[thread_id].append(where)
    for thread_id, places in by_thread.items():
        yield ask("remove", thread_id, places, lease=_lease_on(named(thread_id)))


def copy_thread(source: Thread, target: Thread) -> Asking[None]:
    """Copy all checkpoints."""
    if not (yield ask("places", source.thread_id)):
        return
    yield from opened(target, ask("copy", source.thread_id, target.thread_id, lease=target.held()))


def prune(
    serde: SerializerProtocol, named: Callable[[str], Thread], thread_ids: Sequence[str], strategy: str
) -> Asking[None]:
    """Remove what the strategy does not keep."""
    if isinstance(thread_ids, str):
        raise InvalidArgument("thread_ids must be a list of thread ids, not a text")
    if strategy not in _STRATEGIES:
        raise InvalidArgument(f"strategy must be one of {', '.join(_STRATEGIES)}, not {strategy!r}")
    for thread_id in thread_ids:
        thread = named(str(thread_id))
        found = yield ask("places", thread.thread_id)
        places = [where for _, where in found]
        kept = set() if strategy == "delete" else (yield from _kept(serde, thread.thread_id, places))
        gone = [where for where in places if where not in kept]
        if gone:
            yield ask("remove", thread.thread_id, gone, lease=_lease_on(thread))


def _lease_on(thread: Thread) -> object | None:
    """The lease, where it is on this thread: the saver's own may be on another."""
    lease = thread.lease
    return lease if lease is not None and lease.session_id == thread.thread_id else None


def _kept(serde: SerializerProtocol, thread_id: str, places: Sequence[str]) -> Asking[set[str]]:
    """The latest of each namespace, and what its delta channels are rebuilt from."""
    by_namespace: defaultdict[str, list[str]] = defaultdict(list)
    for where in places:
        by_namespace[parted(where)[0]].append(where)
    heads = {namespace: max(own, key=lambda where: parted(where)[1]) for namespace, own in by_namespace.items()}
    seen = yield from _read(serde, thread_id, sorted(heads.values()))
    roots = set(by_namespace.get("", ()))
    kept: set[str] = set()
    for namespace, head in sorted(heads.items()):
        if head not in seen:
            continue
        root = (seen[head].metadata.get("parents") or {}).get("")
        # A call of a subgraph has its task's id behind a colon, unlike a subgraph that keeps its state from call to call.
        if ":" in seen[head].namespace and root is not None:
            made_from = place("", root)
            if made_from in roots and made_from not in kept:
                continue
        kept.add(head)
        kept |= yield from _needed_by_deltas(serde, thread_id, namespace, seen[head])
    return kept


def _needed_by_deltas(serde: SerializerProtocol, thread_id: str, namespace: str, head: Read) -> Asking[set[str]]:
    """The ancestors from which values are rebuilt that the checkpoint itself does not have."""
    missing = missing_in(head)
    needed: set[str] = set()
    at = head
    while missing and at.parent is not None:
        where = place(namespace, at.parent)
        found = yield from _read(serde, thread_id, [where])
        if where not in found:
            break
        at = found[where]
        needed.add(where)
        missing -= at.known.channels.keys()
    return needed


def missing_in(seen: Read) -> set[str]:
    """The delta channels that have no value in a checkpoint."""
    counted = seen.metadata.get("counters_since_delta_snapshot") or {}
    return {channel for channel in counted if channel not in seen.known.channels}


def _read(serde: SerializerProtocol, thread_id: str, places: Sequence[str]) -> Asking[dict[str, Read]]:
    seen: dict[str, Read] = {}
    for start in range(0, len(places), _PAGE):
        rows, items, values = yield ask("read_rows", thread_id, places[start : start + _PAGE])
        found = Found(items, values)
        seen.update({row["place"]: read(serde, row, found) for row in rows})
    return seen
