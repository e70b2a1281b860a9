"""Stores that save turns of sessions: the floor, ours in each way it is used, and our peers'."""

from benchmarks.stores.floor import Floor
from benchmarks.stores.ours import Appends, Checkpoints, Messages, Wholes
from benchmarks.stores.store import Store

__all__ = ["MISSING_PEERS", "Appends", "Checkpoints", "Floor", "Messages", "Store", "Wholes", "peers"]

MISSING_PEERS = "the peers are not installed here; `make bench` measures in an environment that has them"


def peers() -> list[Store]:
    """Our peers' stores on PostgreSQL, where their packages are installed; otherwise none."""
    try:
        from benchmarks.stores.peers import Adk, LangGraph, OpenAI
    except ImportError:
        return []
    return [LangGraph(), OpenAI(), Adk()]
