"""Checkpoints and writes as rows, and what is read back from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langgraph.checkpoint.base import WRITES_IDX_MAP, Checkpoint, CheckpointMetadata, writes_sort_key
from langgraph.checkpoint.serde.base import SerializerProtocol

from lifecycle.adapters.langgraph.texts import content_of, content_of_line, line_of, packed
from lifecycle.adapters.langgraph.values import Found, Listed, Stored, Storing, Typed, relative, store
from lifecycle.errors import InvalidArgument
from lifecycle.graphs import MARKS, line_needing, lines, needed, needs_text, parted, short

Row = Mapping[str, Any]
Channels = dict[str, tuple[Any, Stored]]
"""The version and the value of each channel."""


@dataclass(slots=True)
class Known:
    """What is known of a checkpoint that is stored: what those behind it may share."""

    place: str
    needs: str | None
    first: int | None
    channels: Channels

    @property
    def parent(self) -> tuple[str, str | None, int | None]:
        """As which it must be there for another to share what it has."""
        return self.place, self.needs, self.first


@dataclass(slots=True)
class Written:
    """One write of a task."""

    task_id: str
    task_path: str
    index: int
    channel: str
    value: Any


@dataclass(slots=True)
class Read:
    """A checkpoint as it was read."""

    namespace: str
    parent: str | None
    checkpoint: Checkpoint
    metadata: CheckpointMetadata
    writes: list[Written]
    known: Known


def check_namespace(namespace: str) -> str:
    """The namespace, if a place can be made of it. Raises `InvalidArgument`."""
    if any(mark in namespace for mark in MARKS):
        raise InvalidArgument("checkpoint_ns must not contain the characters U+001D, U+001E and U+001F")
    return namespace


class Serialized:
    """A checkpoint of which what is new is serialized: some channels change their values in place when the graph goes on."""

    def __init__(
        self,
        serde: SerializerProtocol,
        checkpoint: Checkpoint,
        metadata: Mapping[str, Any],
        new: Mapping[str, Any],
        before: Known | None,
    ) -> None:
        self._serde = serde
        self._versions = dict(checkpoint["channel_versions"])
        self._values = dict(checkpoint["channel_values"])
        self._new = frozenset(new)
        rest = {name: value for name, value in checkpoint.items() if name not in {"channel_values", "id"}}
        self.said: list[Typed] = [serde.dumps_typed(rest), serde.dumps_typed(metadata)]
        self._typed = {
            channel: serde.dumps_typed(value)
            for channel, value in self._values.items()
            if self._shared(channel, before) is None
        }

    def channels(self, storing: Storing, before: Known | None) -> Channels:
        """The channels as they are stored, behind a checkpoint of which this is known."""
        channels: Channels = {}
        for channel, value in self._values.items():
            stored = self._shared(channel, before)
            if stored is None:
                typed = self._typed.get(channel) or self._serde.dumps_typed(value)
                last = None if before is None else before.channels.get(channel)
                base = None if last is None else last[1]
                stored = store(typed, storing, listed=type(value) is list, before=base)
            else:
                storing.shares = storing.shares or isinstance(stored, Listed) or bool(stored.names())
            channels[channel] = (self._versions.get(channel), stored)
        return channels

    def has_lists(self) -> bool:
        """Whether some value is a list, which may be one that is stored up to its last elements."""
        return any(type(value) is list and value for value in self._values.values())

    def _shared(self, channel: str, before: Known | None) -> Stored | None:
        """What the checkpoint before has of a channel in the same version."""
        version = self._versions.get(channel)
        last = None if before is None or channel in self._new else before.channels.get(channel)
        return last[1] if last is not None and version is not None and last[0] == version else None


def checkpoint_row(
    serialized: Serialized, namespace: str, parent: str | None, before: Known | None
) -> tuple[dict[str, Any], Storing, Channels]:
    """A checkpoint as a request takes it, what is stored with it, and what will be known of it.

    What the checkpoint `before` has of it is shared.
    """
    storing = Storing()
    forms = [store(typed, storing) for typed in serialized.said]
    channels = serialized.channels(storing, before)
    held = [*forms, *(stored for _, stored in channels.values())]
    names = list(dict.fromkeys(name for one in held for name in one.names()))
    index = {name: i for i, name in enumerate(names)}
    runs = {run: None for one in held if isinstance(one, Listed) for run in relative(one.runs)}
    body = [
        _short_id(parent),
        *(one.form(index) for one in forms),
        {channel: stored.form(index) for channel, (_, stored) in channels.items()},
        *([namespace] if short(namespace) != namespace else []),
    ]
    row = {"body": packed(body), "needs": needs_text(runs, names)}
    return row, storing, channels


def placed(channels: Channels, first: int) -> Channels:
    """The channels of a checkpoint that is stored, its new items numbered from `first` on."""
    return {
        channel: (version, stored.placed(first) if isinstance(stored, Listed) else stored)
        for channel, (version, stored) in channels.items()
    }


def written(
    serde: SerializerProtocol, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
) -> tuple[str, Storing]:
    """Writes of a task as a line, and what is stored with it."""
    storing = Storing()
    held = [
        (WRITES_IDX_MAP.get(channel, i), channel, store(serde.dumps_typed(value), storing))
        for i, (channel, value) in enumerate(writes)
    ]
    names = list(dict.fromkeys(name for *_, stored in held for name in stored.names()))
    index = {name: i for i, name in enumerate(names)}
    content = [_short_id(task_id), task_path, *([i, channel, stored.form(index)] for i, channel, stored in held)]
    return line_needing(names, line_of(content)), storing


def read(serde: SerializerProtocol, row: Row, found: Found) -> Read:
    """The checkpoint of a row."""
    _, names = needed(row["needs"], row["first_item"])
    parent, rest, metadata, forms, *longer = content_of(row["body"])
    namespace, checkpoint_id = parted(row["place"])

    def stored(form: Sequence[Any]) -> Stored:
        return found.stored(form, names, row["first_item"])

    def loaded(one: Stored) -> Any:
        return serde.loads_typed(found.typed(one))

    held = {channel: stored(form) for channel, form in forms.items()}
    said = loaded(stored(rest))
    versions = said["channel_versions"]
    checkpoint: Any = {
        **said,
        "id": checkpoint_id,
        "channel_values": {channel: loaded(one) for channel, one in held.items()},
    }
    channels: Channels = {channel: (versions.get(channel), one) for channel, one in held.items()}
    return Read(
        longer[0] if longer else namespace,
        _long_id(parent),
        checkpoint,
        loaded(stored(metadata)),
        read_writes(serde, row["writes"], found),
        Known(row["place"], row["needs"], row["first_item"], channels),
    )


def read_writes(serde: SerializerProtocol, writes: str | None, found: Found) -> list[Written]:
    """The writes of a row, in LangGraph's order. Of a write that was repeated the first counts, of a special one the last."""
    kept: dict[tuple[str, int], tuple[str, str, Stored]] = {}
    for names, content in lines(writes):
        short, task_path, *forms = content_of_line(content)
        task_id = _long_id(short) or ""
        for index, channel, form in forms:
            if index < 0 or (task_id, index) not in kept:
                kept[task_id, index] = (channel, task_path, found.stored(form, names, None))
    made = [
        Written(task_id, task_path, index, channel, serde.loads_typed(found.typed(stored)))
        for (task_id, index), (channel, task_path, stored) in kept.items()
    ]
    return sorted(made, key=lambda write: writes_sort_key(write.task_path, write.task_id, write.index))


def _short_id(value: str | None) -> str | bytes | None:
    """An id as the bytes of a UUID where it is the text of one."""
    if value is None:
        return None
    try:
        made = UUID(value)
    except ValueError:
        return value
    return made.bytes if str(made) == value else value


def _long_id(value: str | bytes | None) -> str | None:
    return str(UUID(bytes=value)) if isinstance(value, bytes) else value
