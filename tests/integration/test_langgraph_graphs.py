"""Real graphs give the same with our saver as with LangGraph's own: each runs on both, side by side."""

import asyncio
import operator
import uuid
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypedDict

import pytest

pytest.importorskip("langgraph.graph", reason="langgraph is not installed")
pytest.importorskip("langgraph.checkpoint.sqlite", reason="langgraph-checkpoint-sqlite is not installed")

from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt

from lifecycle import AsyncSessionManager, SessionManager
from lifecycle.adapters.langgraph import LifecycleSaver

Config = dict[str, Any]
Step = tuple[str, Any]


class Work(TypedDict, total=False):
    """The state of most graphs here."""

    log: Annotated[list[str], operator.add]
    items: list[str]
    item: str
    answer: str
    facts: dict[str, Any]


def _note(text: str) -> Callable[[Any], dict[str, Any]]:
    def node(_state: Any) -> dict[str, Any]:
        return {"log": [text]}

    return node


def interrupted(saver: Any) -> Any:
    """Two questions to a person in one node, and a pause before another."""

    def ask(_state: Work) -> dict[str, Any]:
        name = interrupt({"question": "name?"})
        return {"answer": name + interrupt("age?"), "log": ["asked"]}

    builder: Any = StateGraph(Work)
    builder.add_node("first", _note("first"))
    builder.add_node("ask", ask)
    builder.add_node("last", _note("last"))
    builder.add_edge(START, "first")
    builder.add_edge("first", "ask")
    builder.add_edge("ask", "last")
    return builder.compile(checkpointer=saver, interrupt_before=["last"])


def parallel(saver: Any) -> Any:
    """Branches that run at once, one of several steps, joined."""
    builder: Any = StateGraph(Work)
    for name in ("a", "b", "c", "c2"):
        builder.add_node(name, _note(name * 300))
    builder.add_node("join", lambda state: {"facts": {"seen": len(state["log"]), "raw": b"\x00\xff" * 400}})
    for name in ("a", "b", "c"):
        builder.add_edge(START, name)
    builder.add_edge("c", "c2")
    builder.add_edge(["a", "b", "c2"], "join")
    return builder.compile(checkpointer=saver)


def sent(saver: Any) -> Any:
    """Work that is dealt out with `Send`, of which one part asks while the others are done; then a node that fails once."""
    failed: list[str] = []

    def work(state: Work) -> dict[str, Any]:
        answer = interrupt("y?") if state["item"] == "y" else ""
        return {"log": [state["item"] * 400 + answer]}

    def end(_state: Work) -> dict[str, Any]:
        if not failed:
            failed.append("end")
            raise ValueError("once")
        return {"log": ["end"]}

    builder: Any = StateGraph(Work)
    builder.add_node("plan", lambda _: {"items": ["x", "y", "z"]})
    builder.add_node("work", work)
    builder.add_node("end", end)
    builder.add_edge(START, "plan")
    builder.add_conditional_edges(
        "plan", lambda state: [Send("work", {"item": item}) for item in state["items"]], ["work"]
    )
    builder.add_edge("work", "end")
    return builder.compile(checkpointer=saver)


def nested(saver: Any) -> Any:
    """A subgraph that asks, within a subgraph; and one that keeps its state from call to call."""
    inner: Any = StateGraph(Work)
    inner.add_node("deep", lambda _: {"answer": interrupt("deep?"), "log": ["deep"]})
    inner.add_edge(START, "deep")
    middle: Any = StateGraph(Work)
    middle.add_node("inner", inner.compile())
    middle.add_node("after", _note("after"))
    middle.add_edge(START, "inner")
    middle.add_edge("inner", "after")
    kept: Any = StateGraph(Work)
    kept.add_node("count", lambda state: {"facts": {"calls": (state.get("facts") or {}).get("calls", 0) + 1}})
    kept.add_edge(START, "count")
    outer: Any = StateGraph(Work)
    outer.add_node("middle", middle.compile())
    outer.add_node("kept", kept.compile(checkpointer=True))
    outer.add_edge(START, "kept")
    outer.add_edge("kept", "middle")
    return outer.compile(checkpointer=saver)


def talking(saver: Any) -> Any:
    """A conversation: messages with tools, one taken out of the middle, all in one list."""

    def chat(state: MessagesState) -> dict[str, Any]:
        count = len(state["messages"])
        call = {"name": "look", "args": {"n": count}, "id": f"call-{count}", "type": "tool_call"}
        return {"messages": [AIMessage("let me see " * 30, id=f"ai-{count}", tool_calls=[call])]}

    def tool(state: MessagesState) -> dict[str, Any]:
        last: Any = state["messages"][-1]
        found = ToolMessage("found " * 100, tool_call_id=last.tool_calls[0]["id"], id=f"tool-{last.id}")
        gone = [RemoveMessage(id=str(state["messages"][0].id))] if len(state["messages"]) > 6 else []
        return {"messages": [found, *gone]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("chat", chat)
    builder.add_node("tool", tool)
    builder.add_edge(START, "chat")
    builder.add_edge("chat", "tool")
    builder.add_edge("tool", END)
    return builder.compile(checkpointer=saver)


def _said(i: int) -> dict[str, Any]:
    return {"messages": [HumanMessage(f"question {i} " * 40, id=f"human-{i}")]}


# What is done with each graph. "fork" goes on from the checkpoint at an index of the history, "edit" changes the state there.
SCRIPTS: dict[str, tuple[Callable[[Any], Any], list[Step]]] = {
    "interrupted": (
        interrupted,
        [("run", {"log": ["start"]}), ("run", Command(resume="Ada")), ("run", Command(resume="42")), ("run", None),
         ("run", {"log": ["again"]}), ("run", Command(resume="Bob")), ("fork", 3), ("run", Command(resume="7"))],
    ),
    "parallel": (parallel, [("run", {"log": []}), ("run", {"log": ["more"]}), ("fork", 2), ("stream", {"log": ["s"]})]),
    "sent": (
        sent,
        [("run", {"log": []}), ("fail", Command(resume="!")), ("run", None), ("stream", {"log": ["again"]}), ("run", Command(resume="?")),
         ("fork", -3)],
    ),
    "nested": (
        nested,
        [("run", {"log": ["start"]}), ("run", Command(resume="yes")), ("run", {"log": ["two"]}), ("stream", Command(resume="no")),
         ("fork", 1)],
    ),
    "talking": (
        talking,
        [("run", _said(0)), ("stream", _said(1)), ("run", _said(2)), ("edit", {"messages": [HumanMessage("edited", id="human-1")]}),
         ("run", _said(3)), ("fork", 4), ("run", _said(4))],
    ),
}  # fmt: skip


class Seen:
    """What a run showed, ids and times written as the order in which they came."""

    def __init__(self) -> None:
        self.shown: list[Any] = []
        self._names: dict[str, str] = {}

    def add(self, what: str, value: Any) -> None:
        """Note a thing that was seen."""
        self.shown.append((what, self._plain(value)))

    def _plain(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {
                self._text(str(key)): self._plain(part)
                for key, part in value.items()
                if key not in {"created_at", "ts"}
            }
        if isinstance(value, list | tuple):
            return [self._plain(part) for part in value]
        if isinstance(value, str):
            return self._text(value)
        if hasattr(value, "model_dump"):
            return type(value).__name__, self._plain(value.model_dump())
        if hasattr(value, "__dataclass_fields__"):
            fields = {name: getattr(value, name) for name in value.__dataclass_fields__}
            return type(value).__name__, self._plain(fields)
        return repr(value) if isinstance(value, BaseException) else value

    def _text(self, text: str) -> str:
        parts = []
        for part in text.split("|"):
            head, colon, last = part.rpartition(":")
            try:
                uuid.UUID(last)
            except ValueError:
                parts.append(part)
            else:
                parts.append(f"{head}{colon}{self._names.setdefault(last, f'id {len(self._names)}')}")
        return "|".join(parts)

    def snapshot(self, snapshot: Any) -> None:
        """Note a state."""
        tasks = [
            (task.name, task.error, [one.value for one in task.interrupts], task.result, task.path)
            for task in snapshot.tasks
        ]
        self.add("state", [snapshot.values, list(snapshot.next), snapshot.metadata, tasks])
        self.add("ids", [snapshot.config["configurable"], (snapshot.parent_config or {}).get("configurable")])


def _thread() -> Config:
    return {"configurable": {"thread_id": "t"}}


def _options(name: str) -> Config:
    # What joins branches changes its value in place: LangGraph gives it to a saver that is still busy with the checkpoint
    # before as it is by then, whichever saver that is.
    return {"durability": "sync"} if name == "parallel" else {}


def run(make: Callable[[Any], Any], saver: Any, name: str, script: list[Step]) -> list[Any]:
    """All that a graph gives, shows and leaves behind."""
    graph, seen, config, options = make(saver), Seen(), _thread(), _options(name)
    for what, given in script:
        if what == "run":
            seen.add("gave", graph.invoke(given, config, **options))
        elif what == "fail":
            with pytest.raises(ValueError, match="once"):
                graph.invoke(given, config, **options)
        elif what == "stream":
            modes = ["values", "updates", "checkpoints", "tasks"]
            _add_stream(seen, list(graph.stream(given, config, stream_mode=modes, subgraphs=True, **options)))
        elif what == "edit":
            graph.update_state(config, given)
        else:
            history = list(graph.get_state_history(config))
            seen.add("gave", graph.invoke(None, history[given].config, **options))
        seen.snapshot(graph.get_state(config, subgraphs=True))
    for snapshot in graph.get_state_history(config):
        seen.snapshot(snapshot)
    for snapshot in graph.get_state_history(config, filter={"source": "loop"}, limit=3):
        seen.snapshot(snapshot)
    return seen.shown


async def arun(make: Callable[[Any], Any], saver: Any, name: str, script: list[Step]) -> list[Any]:
    """The same in an event loop."""
    graph, seen, config, options = make(saver), Seen(), _thread(), _options(name)
    for what, given in script:
        if what == "run":
            seen.add("gave", await graph.ainvoke(given, config, **options))
        elif what == "fail":
            with pytest.raises(ValueError, match="once"):
                await graph.ainvoke(given, config, **options)
        elif what == "stream":
            modes = ["values", "updates", "checkpoints", "tasks"]
            _add_stream(
                seen,
                [part async for part in graph.astream(given, config, stream_mode=modes, subgraphs=True, **options)],
            )
        elif what == "edit":
            await graph.aupdate_state(config, given)
        else:
            history = [snapshot async for snapshot in graph.aget_state_history(config)]
            seen.add("gave", await graph.ainvoke(None, history[given].config, **options))
        seen.snapshot(await graph.aget_state(config, subgraphs=True))
    async for snapshot in graph.aget_state_history(config):
        seen.snapshot(snapshot)
    async for snapshot in graph.aget_state_history(config, filter={"source": "loop"}, limit=3):
        seen.snapshot(snapshot)
    return seen.shown


def _add_stream(seen: Seen, parts: list[Any]) -> None:
    # Tasks that run at once show theirs in no certain order.
    shown = Seen()
    for namespace, mode, part in parts:
        if mode == "checkpoints":
            seen.add(mode, [len(namespace), part["values"], part["metadata"], part["next"]])
        elif mode == "values":
            seen.add(mode, [len(namespace), part])
        elif mode == "updates":
            shown.add(mode, [len(namespace), {name: value for name, value in part.items() if name != "__interrupt__"}])
        elif "result" in part:
            shown.add(mode, [len(namespace), part["name"], part["result"], bool(part["error"])])
    seen.add("stream", sorted(map(repr, shown.shown)))


@pytest.fixture(params=["memory", "sqlite"])
def theirs(request: pytest.FixtureRequest) -> Iterator[Any]:
    """LangGraph's own savers."""
    if request.param == "memory":
        yield InMemorySaver()
        return
    with SqliteSaver.from_conn_string(":memory:") as saver:
        yield saver


@pytest.mark.parametrize("name", SCRIPTS)
def test_as_with_their_savers(migrated_url: str, theirs: Any, name: str) -> None:
    """Results, states, streams and histories."""
    make, script = SCRIPTS[name]
    with SessionManager.open(migrated_url) as manager:
        assert run(make, LifecycleSaver(manager), name, script) == run(make, theirs, name, script)


@pytest.mark.parametrize("kind", ["blocking", "async"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_as_with_their_savers_in_an_event_loop(migrated_url: str, name: str, kind: str) -> None:
    """The same of the async methods, on either kind of manager."""
    make, script = SCRIPTS[name]

    async def ours() -> list[Any]:
        if kind == "blocking":
            with SessionManager.open(migrated_url) as manager:
                return await arun(make, LifecycleSaver(manager), name, script)
        async with AsyncSessionManager.open(migrated_url) as manager:
            return await arun(make, LifecycleSaver(manager), name, script)

    assert asyncio.run(ours()) == asyncio.run(arun(make, InMemorySaver(), name, script))
