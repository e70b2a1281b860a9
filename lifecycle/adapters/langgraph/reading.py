"""Reading checkpoints: one, or a list of them."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple, get_checkpoint_id
from langgraph.checkpoint.serde.base import SerializerProtocol

from lifecycle.adapters.langgraph.calling import Asking, ask
from lifecycle.adapters.langgraph.memory import Memory
from lifecycle.adapters.langgraph.rows import Read, read
from lifecycle.adapters.langgraph.thread import Thread, config_of
from lifecycle.adapters.langgraph.values import Found
from lifecycle.graphs import bounds, parted

# So many checkpoints are read at once; at first fewer, as many ask for the first ones only.
_FIRST_PAGE: Final = 5
_PAGE: Final = 40
Place = tuple[str, str]


def read_tuple(serde: SerializerProtocol, memory: Memory, thread: Thread) -> Asking[CheckpointTuple | None]:
    """The checkpoint that a config names."""
    found = yield ask("read", thread.thread_id, thread.namespace, thread.place)
    if found is None:
        return None
    row, items, values = found
    seen = read(serde, row, Found(items, values))
    memory.keep(thread.thread_id, thread.namespace, seen.known)
    return tuple_of(thread.thread_id, seen)


def tuple_of(thread_id: str, seen: Read) -> CheckpointTuple:
    """A checkpoint as LangGraph takes it."""
    return CheckpointTuple(
        config=config_of(thread_id, seen.namespace, seen.checkpoint["id"]),
        checkpoint=seen.checkpoint,
        metadata=seen.metadata,
        parent_config=None if seen.parent is None else config_of(thread_id, seen.namespace, seen.parent),
        pending_writes=[(write.task_id, write.channel, write.value) for write in seen.writes],
    )


def pages(places: Sequence[Place]) -> Iterator[Sequence[Place]]:
    """Places a page at a time, each of one thread."""
    size = _FIRST_PAGE
    for _, group in groupby(places, key=itemgetter(0)):
        own = list(group)
        start = 0
        while start < len(own):
            yield own[start : start + size]
            start, size = start + size, _PAGE


class Listing:
    """A list of checkpoints, of which `left` may still come (None: all)."""

    def __init__(
        self,
        thread: Thread | None,
        wanted: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> None:
        self._thread = thread
        self._named = thread is not None and thread.named
        self._wanted = wanted or {}
        self._before = None if before is None else get_checkpoint_id(before)
        self.left = None if limit is None else max(limit, 0)

    def places(self) -> Asking[list[Place]]:
        """Where they stand, the latest first, the metadata not yet looked at."""
        if self.left == 0:
            return []
        thread = self._thread
        if thread is None:
            found = yield ask("places")
        elif self._named:
            since, until = bounds(thread.namespace)
            found = yield ask("places", thread.thread_id, since=since, until=until)
        else:
            found = yield ask("places", thread.thread_id)
        kept = [(session_id, where) for session_id, where in found if self._is_meant(parted(where)[1])]
        return sorted(kept, key=lambda one: parted(one[1])[1], reverse=True)

    def page(self, serde: SerializerProtocol, places: Sequence[Place]) -> Asking[list[CheckpointTuple]]:
        """The checkpoints at some places of one thread that have the metadata."""
        thread_id = places[0][0]
        rows, items, values = yield ask("read_rows", thread_id, [where for _, where in places])
        found = Found(items, values)
        by_place = {row["place"]: row for row in rows}
        seen: list[CheckpointTuple] = []
        for _, where in places:
            if self.left == 0:
                break
            if where not in by_place:
                continue
            one = tuple_of(thread_id, read(serde, by_place[where], found))
            if all(value == one.metadata.get(name) for name, value in self._wanted.items()):
                seen.append(one)
                self.left = None if self.left is None else self.left - 1
        return seen

    def _is_meant(self, checkpoint_id: str) -> bool:
        only = None if self._thread is None else self._thread.checkpoint_id
        return (only is None or checkpoint_id == only) and (self._before is None or checkpoint_id < self._before)
