"""LangGraph's threads, whose checkpoints tests put by hand: each holds one list."""

from typing import Any

from langgraph.checkpoint.base import create_checkpoint, empty_checkpoint

from lifecycle.adapters.langgraph import LifecycleSaver


def thread_config(thread_id: str, **more: Any) -> Any:
    """A config that names a thread."""
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", **more}}


def put_list(saver: LifecycleSaver, config: Any, step: int, messages: list[str]) -> Any:
    """Put a checkpoint behind the config's; the config that names it."""
    checkpoint: Any = create_checkpoint(empty_checkpoint(), None, step)
    checkpoint |= {"channel_values": {"messages": messages}, "channel_versions": {"messages": step}}
    return saver.put(config, checkpoint, {"step": step}, {"messages": step})
