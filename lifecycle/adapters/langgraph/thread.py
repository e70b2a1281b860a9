"""Which checkpoint a config names, and under which lease it is written to."""

from dataclasses import dataclass, field
from typing import Any, Self

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import get_checkpoint_id

from lifecycle.adapters.langgraph.rows import check_namespace
from lifecycle.errors import InvalidArgument
from lifecycle.graphs import place
from lifecycle.operations.fencing import Held


@dataclass(slots=True)
class Thread:
    """A thread's session, and what a config says about it."""

    thread_id: str
    namespace: str
    checkpoint_id: str | None
    fenced: bool
    lease: Held | None
    reopen: bool
    values: dict[str, Any] = field(default_factory=dict)
    # Whether the config says a namespace at all.
    named: bool = True

    @classmethod
    def of(
        cls, config: RunnableConfig, *, fenced: bool, lease: Held | None, reopen: bool, values: dict[str, Any]
    ) -> Self:
        """That of a config. Raises `InvalidArgument`."""
        given = config.get("configurable") or {}
        if given.get("thread_id") is None:
            raise InvalidArgument('config["configurable"] must have a thread_id')
        namespace = check_namespace(given.get("checkpoint_ns") or "")
        held = given.get("lease", lease)
        checkpoint_id = get_checkpoint_id(config) or None
        named = given.get("checkpoint_ns") is not None
        return cls(str(given["thread_id"]), namespace, checkpoint_id, fenced, held, reopen, values, named)

    def held(self) -> Held | None:
        """The lease that writes are made under. Raises `InvalidArgument` where there must be one."""
        if self.fenced and self.lease is None:
            raise InvalidArgument(
                f"thread {self.thread_id!r}: a fenced saver writes under a lease only: "
                'put one into config["configurable"]["lease"]'
            )
        return self.lease

    @property
    def place(self) -> str | None:
        """Where the checkpoint stands; None for the latest."""
        return None if self.checkpoint_id is None else place(self.namespace, self.checkpoint_id)


def config_of(thread_id: str, namespace: str, checkpoint_id: str) -> RunnableConfig:
    """The config that names a checkpoint."""
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id}}
