"""Putting checkpoints and writes."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, get_checkpoint_metadata
from langgraph.checkpoint.serde.base import SerializerProtocol

from lifecycle.adapters.langgraph.calling import Ask, Asking, ask
from lifecycle.adapters.langgraph.memory import Memory
from lifecycle.adapters.langgraph.rows import Known, Serialized, checkpoint_row, placed, read, written
from lifecycle.adapters.langgraph.thread import Thread, config_of
from lifecycle.adapters.langgraph.values import Found
from lifecycle.errors import InvalidArgument, InvalidTransition, SessionBusy, SessionNotFound
from lifecycle.graphs import place as place_of

T = TypeVar("T")
# To be created, then to be reopened, and once more where somebody else does the same at the same moment.
_TRIES: Final = 4


def put(
    serde: SerializerProtocol,
    memory: Memory,
    thread: Thread,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new: ChannelVersions,
) -> Asking[RunnableConfig]:
    """Store a checkpoint; the config that names it."""
    lease = thread.held()
    said = get_checkpoint_metadata(config, metadata)
    run_id = said.get("run_id")
    place = place_of(thread.namespace, checkpoint["id"])
    before = None
    if thread.place is not None:
        before = memory.get(thread.thread_id, thread.namespace, thread.place)
    serialized = Serialized(serde, checkpoint, said, new, before)
    if thread.place is not None and before is None and serialized.has_lists():
        before = yield from _look(serde, thread)
    while True:
        row, storing, channels = checkpoint_row(serialized, thread.namespace, thread.checkpoint_id, before)
        parent = before.parent if before is not None and storing.shares else None
        first: int | None = yield from opened(
            thread,
            ask(
                "put", thread.thread_id, place, **row, items=storing.items, values=storing.rows(), lease=lease,
                run_id=run_id if isinstance(run_id, str) else None, parent=parent,
            ),
        )  # fmt: skip
        if first is not None:
            known = Known(place, row["needs"], first if storing.items else None, placed(channels, first))
            memory.keep(thread.thread_id, thread.namespace, known)
            return config_of(thread.thread_id, thread.namespace, checkpoint["id"])
        # The checkpoint that it shares parts with was removed: it brings its own.
        memory.forget(thread.thread_id, thread.namespace)
        before = None


def put_writes(
    serde: SerializerProtocol, thread: Thread, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
) -> Asking[None]:
    """Store what a task wrote."""
    lease = thread.held()
    if thread.place is None:
        raise InvalidArgument('config["configurable"] must have the checkpoint_id that the writes belong to')
    line, storing = written(serde, writes, task_id, task_path)
    values = storing.rows()
    yield from opened(thread, ask("put_writes", thread.thread_id, thread.place, line=line, values=values, lease=lease))


def _look(serde: SerializerProtocol, thread: Thread) -> Asking[Known | None]:
    """What is known of the checkpoint that the next one is put behind: read, as this process has not."""
    found = yield ask("read", thread.thread_id, thread.namespace, thread.place)
    if found is None:
        return None
    row, items, values = found
    seen = read(serde, row, Found(items, values))
    return seen.known


def opened(thread: Thread, wanted: Ask) -> Asking[Any]:
    """What the call gives, its session created or reopened for it where that is due."""
    for last in (False,) * (_TRIES - 1) + (True,):
        try:
            return (yield wanted)
        except SessionNotFound:
            if last or thread.lease is not None:
                raise
            yield ask("open_session", thread.thread_id, **thread.values)
        except InvalidTransition as error:
            if last or not thread.reopen or error.state != "expired":
                raise
            yield ask("reopen_session", thread.thread_id, reason="the thread goes on", lease=thread.lease)
        except SessionBusy as error:
            if last or error.until is None or error.until > datetime.now(UTC):
                raise
            # What refused it is over: the session was not there, say, and then another made it.
    raise AssertionError("unreachable")
