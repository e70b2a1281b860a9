"""LangGraph's `PostgresSaver`, used as its graphs use it.

A step reads the latest checkpoint of a thread with `get_tuple`, and `put` stores the next one under the config that
came with it, which names it as the parent. Versions of channels come from `get_next_version`, ids from
`create_checkpoint`, made when the step is done, as the loop of a graph does.
"""

import contextlib
from typing import Any, ClassVar

import psycopg
from langgraph.checkpoint.base import create_checkpoint, empty_checkpoint
from langgraph.checkpoint.postgres import PostgresSaver

from benchmarks.races.store import START, Standing, Store

_CHANNEL = "entries"


class LangGraph(Store):
    """A thread for each session."""

    refusals: ClassVar[tuple[type[Exception], ...]] = (psycopg.Error,)

    def __init__(self, url: str) -> None:
        self._open = contextlib.ExitStack()
        self._saver = self._open.enter_context(PostgresSaver.from_conn_string(url))
        # The config that names the latest checkpoint this process knows, and the checkpoint.
        self._known: dict[str, tuple[Any, Any]] = {}

    def setup(self) -> None:
        """Create the saver's tables."""
        self._saver.setup()

    def create(self, session: str) -> None:
        """Put the first checkpoint."""
        config = {"configurable": {"thread_id": session, "checkpoint_ns": ""}}
        self._put(session, config, empty_checkpoint(), [START])

    def read(self, session: str) -> None:
        """Get the latest checkpoint."""
        found = self._saver.get_tuple(_thread(session))
        self._known[session] = (found.config, found.checkpoint)

    def write(self, session: str, entry: str) -> None:
        """Put a child of the known checkpoint."""
        config, checkpoint = self._known[session]
        self._put(session, config, checkpoint, [*checkpoint["channel_values"][_CHANNEL], entry])

    def standing(self, session: str) -> Standing:
        """Get the latest checkpoint, and count those that are nobody's parent."""
        latest = self._saver.get_tuple(_thread(session))
        history = list(self._saver.list(_thread(session)))
        parents = {_id(found.parent_config) for found in history if found.parent_config}
        ends = sum(_id(found.config) not in parents for found in history)
        return Standing(latest.checkpoint["channel_values"][_CHANNEL], ends)

    def close(self) -> None:
        """Close the connection."""
        self._open.close()

    def _put(self, session: str, config: Any, before: Any, entries: list[str]) -> None:
        step = len(entries)
        checkpoint = create_checkpoint(before, None, step)
        version = self._saver.get_next_version(before["channel_versions"].get(_CHANNEL), None)
        checkpoint["channel_values"] = {_CHANNEL: entries}
        checkpoint["channel_versions"] = {**before["channel_versions"], _CHANNEL: version}
        metadata = {"source": "loop", "step": step, "parents": {}}
        self._known[session] = (self._saver.put(config, checkpoint, metadata, {_CHANNEL: version}), checkpoint)


def _thread(session: str) -> Any:
    return {"configurable": {"thread_id": session}}


def _id(config: Any) -> str:
    return str(config["configurable"]["checkpoint_id"])
