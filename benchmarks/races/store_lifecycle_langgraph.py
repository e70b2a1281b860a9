"""Lifecycle's saver for LangGraph, used as LangGraph's own is in `store_langgraph`, under a lease."""

from typing import Any, ClassVar

from langgraph.checkpoint.base import create_checkpoint, empty_checkpoint

from benchmarks.races.store import START, Standing
from benchmarks.races.store_lifecycle import Leased
from lifecycle import Conflict
from lifecycle.adapters.langgraph import LifecycleSaver

_CHANNEL = "entries"


class LifecycleLangGraph(Leased):
    """A thread for each session. The first checkpoint comes before anybody holds it."""

    refusals: ClassVar[tuple[type[Exception], ...]] = (Conflict,)

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._saver = LifecycleSaver(self._manager, fenced=True)
        self._known: dict[str, tuple[Any, Any]] = {}

    def create(self, session: str) -> None:
        """Put the first checkpoint."""
        config = {"configurable": {"thread_id": session, "checkpoint_ns": ""}}
        self._put(LifecycleSaver(self._manager), session, config, empty_checkpoint(), [START])

    def read(self, session: str) -> None:
        """Get the latest checkpoint."""
        found = self._saver.get_tuple(_thread(session))
        if found is None:
            raise RuntimeError(f"thread {session!r} has no checkpoint")
        self._known[session] = (found.config, found.checkpoint)

    def write(self, session: str, entry: str) -> None:
        """Put a child of the known checkpoint under the lease."""
        config, checkpoint = self._known[session]
        held = {"configurable": {**config["configurable"], **self._guard(session)}}
        self._put(self._saver, session, held, checkpoint, [*checkpoint["channel_values"][_CHANNEL], entry])

    def standing(self, session: str) -> Standing:
        """Get the latest checkpoint, and count those that are nobody's parent."""
        latest = self._saver.get_tuple(_thread(session))
        history = list(self._saver.list(_thread(session)))
        parents = {_id(found.parent_config) for found in history if found.parent_config}
        ends = sum(_id(found.config) not in parents for found in history)
        return Standing([] if latest is None else latest.checkpoint["channel_values"][_CHANNEL], ends)

    def _put(self, saver: LifecycleSaver, session: str, config: Any, before: Any, entries: list[str]) -> None:
        step = len(entries)
        checkpoint: Any = create_checkpoint(before, None, step)
        version = saver.get_next_version(before["channel_versions"].get(_CHANNEL), None)
        checkpoint["channel_values"] = {_CHANNEL: entries}
        checkpoint["channel_versions"] = {**before["channel_versions"], _CHANNEL: version}
        metadata: Any = {"source": "loop", "step": step, "parents": {}}
        self._known[session] = (saver.put(config, checkpoint, metadata, {_CHANNEL: version}), checkpoint)


def _thread(session: str) -> Any:
    return {"configurable": {"thread_id": session}}


def _id(config: Any) -> str:
    return str(config["configurable"]["checkpoint_id"])
