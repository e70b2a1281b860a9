"""A LangGraph graph that waits for a person across processes: kill it with -9, start it again, it goes on.

    pip install 'session-lifecycle[langgraph]' langgraph
    python -m examples.langgraph_graph                    # drafts an offer, piece by piece, then waits for an answer
    python -m examples.langgraph_graph --answer "send it" # answers, in a second process, and the graph finishes
    python -m examples.langgraph_graph --thread two       # another one; run several at once if you like

Nothing is asked over the network: the "model" is a function. One process at a time works on a thread, under a lease: what
a former one writes late is refused.
"""

import argparse
import os
import sys
import time
from typing import Any

from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from lifecycle import SessionManager
from lifecycle.adapters.langgraph import LifecycleSaver


class Offer(MessagesState):
    """The conversation, and what was found for the offer."""

    found: int


def make_graph(saver: LifecycleSaver, pieces: int, seconds: float) -> Any:
    """Look pieces up one by one, ask a person, then answer."""

    def look_up(state: Offer) -> dict[str, Any]:
        number = state.get("found", 0) + 1
        print(f"  looking up piece {number} (process {os.getpid()})", flush=True)
        time.sleep(seconds)
        return {"found": number, "messages": [AIMessage(f"Piece {number} costs {number * 10}", id=f"piece-{number}")]}

    def ask(state: Offer) -> dict[str, Any]:
        answer = interrupt(
            f"{state['found']} pieces cost {sum(n * 10 for n in range(1, state['found'] + 1))}: send it?"
        )
        return {"messages": [("user", answer)]}

    def send(state: Offer) -> dict[str, Any]:
        return {"messages": [AIMessage(f"Done as told: {state['messages'][-1].content}", id="sent")]}

    builder = StateGraph(Offer)
    builder.add_node("look_up", look_up)
    builder.add_node("ask", ask)
    builder.add_node("send", send)
    builder.add_edge(START, "look_up")
    builder.add_conditional_edges(
        "look_up", lambda state: "look_up" if state["found"] < pieces else "ask", ["look_up", "ask"]
    )
    builder.add_edge("ask", "send")
    builder.add_edge("send", END)
    return builder.compile(checkpointer=saver)


def main() -> int:
    """Begin, or go on with, a thread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="sqlite:///langgraph_graph.db", help="the database")
    parser.add_argument("--thread", default="one", help="the thread's id")
    parser.add_argument("--pieces", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="how long looking up takes")
    parser.add_argument("--answer", help="what the person says")
    parser.add_argument("--ttl", type=float, default=3.0, help="seconds until a dead process's thread is taken over")
    options = parser.parse_args()
    with SessionManager.open(options.url) as manager:
        manager.setup()
        manager.open_session(options.thread, kind="offers")
        with manager.lease(options.thread, ttl=options.ttl, wait=60) as lease:
            graph = make_graph(LifecycleSaver(manager, fenced=True), options.pieces, options.seconds)
            return work(graph, {"configurable": {"thread_id": options.thread, "lease": lease}}, options.answer)


def work(graph: Any, config: dict[str, Any], answer: str | None) -> int:
    """Take the thread as far as it goes."""
    state = graph.get_state(config)
    given: Any = None
    if not state.created_at:
        given = {"messages": [("user", "What would five pieces cost?")]}
    elif state.next == ("ask",):
        given = None if answer is None else Command(resume=answer)
    if state.values.get("found"):
        print(f"going on after piece {state.values['found']}, next is {', '.join(state.next) or 'nothing'}", flush=True)
    # Each step is stored before the next one begins.
    for part in graph.stream(given, config, stream_mode="updates", durability="sync"):
        for name in part:
            print(f"{name} done (process {os.getpid()})", flush=True)
    state = graph.get_state(config)
    for question in state.interrupts:
        print(f"waiting: {question.value}", flush=True)
    if not state.next:
        print(f"finished: {state.values['messages'][-1].content}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
