"""The checkpointer: `builder.compile(checkpointer=LifecycleSaver(manager))`."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from lifecycle.adapters.langgraph.calling import Caller, Manager
from lifecycle.adapters.langgraph.memory import Memory
from lifecycle.adapters.langgraph.reading import Listing, pages, read_tuple
from lifecycle.adapters.langgraph.removing import copy_thread, delete_for_runs, delete_thread, prune
from lifecycle.adapters.langgraph.replaying import delta_history
from lifecycle.adapters.langgraph.thread import Thread
from lifecycle.adapters.langgraph.writing import put, put_writes
from lifecycle.operations.fencing import Held


class LifecycleSaver(BaseCheckpointSaver[int]):
    """LangGraph's checkpoints in the sessions of the manager's tenant: a thread is the session with its id.

    The first checkpoint creates the session with `values`, which are those of `create_session` (kind, user_id, agent_id,
    metadata, idle_timeout and so on). One that has expired is reopened by the next checkpoint, unless `reopen` is
    false; one that is completed or ended refuses them with `InvalidTransition`.

    Under a lease, `config["configurable"]["lease"]` or the saver's own `lease`, all writes are made under it, and whoever
    has lost it is refused with `LeaseLost`. Without one they raise `SessionBusy` while somebody holds the session; with
    `fenced` there must be one, or they raise `InvalidArgument`.

    `manager` may be a `SessionManager`, for threads and any number of event loops, or an `AsyncSessionManager`, for the
    one that uses it first. `serde` serializes values, as in any of LangGraph's savers.
    """

    def __init__(
        self,
        manager: Manager,
        *,
        serde: SerializerProtocol | None = None,
        fenced: bool = False,
        lease: Held | None = None,
        reopen: bool = True,
        **values: Any,
    ) -> None:
        super().__init__(serde=serde)
        self.manager = manager
        self.fenced = fenced
        self.lease = lease
        self.reopen = reopen
        self.values = values
        self.memory = Memory()
        self._caller = Caller(manager)

    def _thread(self, config: RunnableConfig) -> Thread:
        return Thread.of(config, fenced=self.fenced, lease=self.lease, reopen=self.reopen, values=self.values)

    def _named(self, thread_id: str) -> Thread:
        return self._thread({"configurable": {"thread_id": thread_id}})

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the config names, or the latest of its thread and namespace; None where there is none."""
        return self._caller.run(read_tuple(self.serde, self.memory, self._thread(config)))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        return await self._caller.arun(read_tuple(self.serde, self.memory, self._thread(config)))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """The checkpoints of a thread, or of all, the latest first: those with this metadata, `limit` at most."""
        listing = Listing(None if config is None else self._thread(config), filter, before, limit)
        places = self._caller.run(listing.places())
        for page in pages(places):
            yield from self._caller.run(listing.page(self.serde, page))
            if listing.left == 0:
                return

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As `list`."""
        listing = Listing(None if config is None else self._thread(config), filter, before, limit)
        places = await self._caller.arun(listing.places())
        for page in pages(places):
            for found in await self._caller.arun(listing.page(self.serde, page)):
                yield found
            if listing.left == 0:
                return

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint behind the one that the config names, and return the config that names it.

        Raises `InvalidTransition` (the session is over), `SessionBusy`, `LeaseLost`, `LimitExceeded`.
        """
        asking = put(self.serde, self.memory, self._thread(config), config, checkpoint, metadata, new_versions)
        return self._caller.run(asking)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`."""
        asking = put(self.serde, self.memory, self._thread(config), config, checkpoint, metadata, new_versions)
        return await self._caller.arun(asking)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task wrote behind the checkpoint that the config names; a repeat changes nothing.

        Raises what `put` raises.
        """
        self._caller.run(put_writes(self.serde, self._thread(config), writes, task_id, task_path))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As `put_writes`."""
        await self._caller.arun(put_writes(self.serde, self._thread(config), writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """Remove the thread's session with all that it owns, to the archive if there is one.

        Raises `SessionProtected`, `SessionBusy` while somebody holds it.
        """
        self._caller.run(delete_thread(self._named(thread_id)))

    async def adelete_thread(self, thread_id: str) -> None:
        """As `delete_thread`."""
        await self._caller.arun(delete_thread(self._named(thread_id)))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints of some runs (`run_id` in the metadata) with their writes. Raises `SessionBusy`."""
        self._caller.run(delete_for_runs(self._named, run_ids))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `delete_for_runs`."""
        await self._caller.arun(delete_for_runs(self._named, run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints and writes of a thread to another that has none; of none, nothing.

        Raises `InvalidArgument` where that one has some, and what `put` raises.
        """
        self._caller.run(copy_thread(self._named(source_thread_id), self._named(target_thread_id)))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `copy_thread`."""
        await self._caller.arun(copy_thread(self._named(source_thread_id), self._named(target_thread_id)))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Remove all checkpoints of threads but the latest of each namespace, or all (`strategy="delete"`).

        Those that the latest one's delta channels are rebuilt from are kept too. A subgraph's call goes with the
        checkpoint that it was made from. Raises `InvalidArgument` for another strategy, and `SessionBusy`.
        """
        self._caller.run(prune(self.serde, self._named, thread_ids, strategy))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As `prune`."""
        await self._caller.arun(prune(self.serde, self._named, thread_ids, strategy))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What the checkpoint's ancestors wrote to channels, from the nearest one on that has a value of each."""
        return self._caller.run(delta_history(self.serde, self._thread(config), channels))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As `get_delta_channel_history`."""
        return await self._caller.arun(delta_history(self.serde, self._thread(config), channels))

    def get_next_version(self, current: int | str | None, channel: None) -> Any:  # noqa: ARG002 - LangGraph's signature
        """The version behind this one: a number, or a text like those of LangGraph's other savers behind one of theirs."""
        if isinstance(current, str):
            head, _, tail = current.partition(".")
            return f"{int(head) + 1:0{len(head)}}.{tail or 0}"
        return 1 if current is None else current + 1
