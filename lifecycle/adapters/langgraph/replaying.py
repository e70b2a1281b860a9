"""What delta channels are rebuilt from: the writes of a checkpoint's ancestors, and the value that they began with."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from langgraph.checkpoint.base import DeltaChannelHistory, PendingWrite
from langgraph.checkpoint.serde.base import SerializerProtocol

from lifecycle.adapters.langgraph.calling import Asking, ask
from lifecycle.adapters.langgraph.rows import Read, read
from lifecycle.adapters.langgraph.thread import Thread
from lifecycle.adapters.langgraph.values import Found
from lifecycle.graphs import bounds, parted, place

# Ancestors stand before their checkpoint, mostly one after the other: so many are read at once.
_PAGE: Final = 50


def delta_history(
    serde: SerializerProtocol, thread: Thread, channels: Sequence[str]
) -> Asking[Mapping[str, DeltaChannelHistory]]:
    """The history of each channel, from its nearest stored value on."""
    if not channels:
        return {}
    writes: dict[str, list[PendingWrite]] = {channel: [] for channel in channels}
    seeds: dict[str, Any] = {}
    left = set(channels)
    since, until = bounds(thread.namespace)
    found = yield ask("places", thread.thread_id, since=since, until=until)
    places = [where for _, where in found]
    at = thread.place or (places[-1] if places else None)
    seen: dict[str, Read] = {}
    first = True
    while at is not None and left:
        if at not in seen:
            seen = yield from _read_back(serde, thread.thread_id, places, at)
        one = seen.get(at)
        if one is None:
            break
        if not first:
            for write in reversed(one.writes):
                if write.channel in left:
                    writes[write.channel].append((write.task_id, write.channel, write.value))
            for channel in left & one.checkpoint["channel_values"].keys():
                seeds[channel] = one.checkpoint["channel_values"][channel]
                left.discard(channel)
        first = False
        at = None if one.parent is None else place(parted(at)[0], one.parent)
    histories: dict[str, DeltaChannelHistory] = {}
    for channel, own in writes.items():
        histories[channel] = {"writes": own[::-1]}
        if channel in seeds:
            histories[channel]["seed"] = seeds[channel]
    return histories


def _read_back(serde: SerializerProtocol, thread_id: str, places: Sequence[str], at: str) -> Asking[dict[str, Read]]:
    """A checkpoint and some of those that stand before it."""
    before = [where for where in places if where <= at][-_PAGE:]
    rows, items, values = yield ask("read_rows", thread_id, before)
    found = Found(items, values)
    return {row["place"]: read(serde, row, found) for row in rows}
