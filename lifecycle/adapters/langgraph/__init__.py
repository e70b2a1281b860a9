"""LangGraph's checkpointer on a manager: `graph = builder.compile(checkpointer=LifecycleSaver(manager))`."""

from lifecycle.adapters.langgraph.saver import LifecycleSaver

__all__ = ["LifecycleSaver"]
