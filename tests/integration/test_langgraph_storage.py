"""What LangGraph's checkpoints take: what is new, once; and a round trip each on PostgreSQL."""

import asyncio
import secrets
from typing import Any
from uuid import UUID

import psycopg
import pytest

pytest.importorskip("langgraph.graph", reason="langgraph is not installed")

from langchain_core.messages import AIMessage
from langgraph.checkpoint.base import create_checkpoint, empty_checkpoint
from langgraph.graph import START, MessagesState, StateGraph

from lifecycle import AsyncSessionManager, SessionManager
from lifecycle.adapters.langgraph import LifecycleSaver
from tests.populations import stored_bytes
from tests.wire import CountingProxy

TURNS = 200
PAYLOAD = 2048


def _text(size: int) -> str:
    return secrets.token_urlsafe(size)[:size]


def _chat(answers: int) -> StateGraph[Any]:
    builder = StateGraph(MessagesState)
    builder.add_node("chat", lambda _: {"messages": [AIMessage(_text(answers))]})
    builder.add_edge(START, "chat")
    return builder


def _talk(graph: Any, thread_id: str, questions: int, turns: int) -> None:
    for _ in range(turns):
        graph.invoke({"messages": [{"role": "user", "content": _text(questions)}]}, _config(thread_id))


def _config(thread_id: str, **more: Any) -> Any:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", **more}}


@pytest.mark.parametrize("thread_id", ["support-42", str(UUID(int=1 << 127))])
@pytest.mark.parametrize(("question", "answer"), [(1024, 1024), (2008, 40)])
def test_turns_take_little_more_than_they_say(
    migrated_postgres_url: str, question: int, answer: int, thread_id: str
) -> None:
    """200 turns of 2 KB in a graph as anybody writes it: at most twice that, three checkpoints a turn included.

    Between other threads, as the pages of an index are left half empty where one grows in its middle.
    """
    with (
        SessionManager.open(migrated_postgres_url) as manager,
        psycopg.connect(migrated_postgres_url, autocommit=True) as raw,
    ):
        graph = _chat(answer).compile(checkpointer=LifecycleSaver(manager))
        # The first pages of tables and of their maps are there whoever comes.
        for other in ("00-warm-up", "warm-up-00"):
            _talk(graph, other, question, 10)
        raw.execute("VACUUM")  # which makes the maps: autovacuum may come at any time
        empty = stored_bytes(raw)
        _talk(graph, thread_id, question, TURNS)
        stored = stored_bytes(raw) - empty
        assert len(graph.get_state(_config(thread_id)).values["messages"]) == 2 * TURNS
    assert stored <= 2.0 * PAYLOAD * TURNS


def test_a_late_turn_costs_what_an_early_one_does(migrated_postgres_url: str) -> None:
    """What is written to the log does not grow with the thread."""
    with (
        SessionManager.open(migrated_postgres_url) as manager,
        psycopg.connect(migrated_postgres_url, autocommit=True) as raw,
    ):
        graph = _chat(1024).compile(checkpointer=LifecycleSaver(manager))
        logged: list[int] = []
        for _ in range(120):
            before = raw.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
            _talk(graph, "t", 1024, 1)
            (size,) = raw.execute("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", before).fetchone() or (0,)
            logged.append(int(size))
    assert sorted(logged[-20:])[10] <= sorted(logged[5:25])[10] * 1.2


def _checkpoint(messages: list[Any], step: int, last: Any = None) -> Any:
    checkpoint = create_checkpoint(last or empty_checkpoint(), None, step)
    checkpoint["channel_values"] = {"messages": messages, "topic": "t" * 3000}
    checkpoint["channel_versions"] = {"messages": step, "topic": 1}
    return checkpoint


def test_a_checkpoint_and_a_read_are_a_round_trip_each(migrated_postgres_url: str) -> None:
    """On the wire: put behind what this process has read or put, put_writes, and get_tuple."""
    with CountingProxy(migrated_postgres_url) as proxy, SessionManager.open(proxy.settings) as manager:
        saver = LifecycleSaver(manager)
        messages: list[Any] = [AIMessage(_text(800)) for _ in range(3)]
        config = saver.put(_config("t"), _checkpoint(messages, 1), {"step": 1}, {"messages": 1, "topic": 1})
        for step in (2, 3):  # the statements are prepared by then
            messages.append(AIMessage(_text(800)))
            saver.put_writes(config, [("messages", messages[-1:])], "task")
            config = saver.put(config, _checkpoint(messages, step), {"step": step}, {"messages": step})
            assert saver.get_tuple(_config("t")) == saver.get_tuple(config)
        before = proxy.round_trips
        saver.put_writes(config, [("messages", [AIMessage(_text(800))])], "task")
        assert proxy.round_trips - before == 1
        messages.append(AIMessage(_text(800)))
        config = saver.put(config, _checkpoint(messages, 4), {"step": 4}, {"messages": 4})
        assert proxy.round_trips - before == 2
        found = saver.get_tuple(_config("t"))
        assert proxy.round_trips - before == 3
        assert found is not None
        assert found.checkpoint["channel_values"] == {"messages": messages, "topic": "t" * 3000}


def test_the_same_in_an_event_loop(migrated_postgres_url: str) -> None:
    """An async manager's connections talk as little."""

    async def use(proxy: CountingProxy) -> None:
        async with AsyncSessionManager.open(proxy.settings) as manager:
            saver = LifecycleSaver(manager)
            messages: list[Any] = [AIMessage(_text(800))]
            config = await saver.aput(_config("t"), _checkpoint(messages, 1), {"step": 1}, {"messages": 1, "topic": 1})
            for step in (2, 3):
                messages.append(AIMessage(_text(800)))
                config = await saver.aput(config, _checkpoint(messages, step), {"step": step}, {"messages": step})
                await saver.aget_tuple(_config("t"))
            before = proxy.round_trips
            messages.append(AIMessage(_text(800)))
            await saver.aput(config, _checkpoint(messages, 4), {"step": 4}, {"messages": 4})
            found = await saver.aget_tuple(_config("t"))
            assert proxy.round_trips - before == 2
            assert found is not None
            assert found.checkpoint["channel_values"]["messages"] == messages

    with CountingProxy(migrated_postgres_url) as proxy:
        asyncio.run(use(proxy))
