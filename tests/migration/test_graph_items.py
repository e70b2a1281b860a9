"""The items of graphs' lists, from rows of their own into the rows of checkpoints, and back."""

import secrets
from typing import Any

import pytest
import sqlalchemy as sa

pytest.importorskip("langgraph.checkpoint.base", reason="langgraph is not installed")

from langgraph.checkpoint.base import create_checkpoint, empty_checkpoint

from lifecycle import SessionManager, migrate
from lifecycle.adapters.langgraph import LifecycleSaver
from lifecycle.models import tables as t
from tests.managers import connected

THREADS = ("short", "long", "none")


def _config(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}


def _put(saver: LifecycleSaver, config: Any, step: int, messages: list[str]) -> Any:
    checkpoint: Any = create_checkpoint(empty_checkpoint(), None, step)
    checkpoint |= {"channel_values": {"messages": messages}, "channel_versions": {"messages": step}}
    return saver.put(config, checkpoint, {"step": step}, {"messages": step})


def _fill(url: str) -> dict[str, list[tuple[Any, list[str]]]]:
    """Threads whose lists grow, by their ids: the config and the list of each checkpoint."""
    stored: dict[str, list[tuple[Any, list[str]]]] = {}
    with SessionManager.open(url) as manager:
        saver = LifecycleSaver(manager)
        for thread_id, length in zip(THREADS, (1, 1500, 0), strict=True):
            messages = [secrets.token_urlsafe(150 + 30 * (i % 7)) for i in range(length)]
            config = _put(saver, _config(thread_id), 1, messages)
            stored[thread_id] = [(config, messages)]
            for step in (2, 3):
                messages = [*messages[step:], secrets.token_urlsafe(300)]
                config = _put(saver, config, step, messages)
                stored[thread_id].append((config, messages))
    return stored


def _check(url: str, stored: dict[str, list[tuple[Any, list[str]]]]) -> None:
    with SessionManager.open(url) as manager:
        saver = LifecycleSaver(manager)
        for thread_id, checkpoints in stored.items():
            assert [found.config for found in saver.list(_config(thread_id))] == [one for one, _ in checkpoints][::-1]
            for config, messages in checkpoints:
                found = saver.get_tuple(config)
                assert found is not None
                assert found.checkpoint["channel_values"] == {"messages": messages}


def test_items_move_into_the_rows_of_checkpoints_and_back(url: str) -> None:
    """What graphs keep stays whole, goes on, and leaves nothing behind."""
    stored = _fill(url)
    migrate.downgrade(url, "0004")
    with connected(url) as connection:
        items = connection.exec_driver_sql("SELECT session_id, number FROM session_graph_items").all()
        kept = connection.exec_driver_sql("SELECT count(*) FROM session_graph_checkpoints").scalar()
    assert len({*items}) == len(items) > 1000
    assert kept == sum(map(len, stored.values()))
    migrate.upgrade(url)
    _check(url, stored)
    with SessionManager.open(url) as manager:
        saver = LifecycleSaver(manager)
        for checkpoints in stored.values():
            config, messages = checkpoints[-1]
            saver.get_tuple(config)
            checkpoints.append((_put(saver, config, 4, [*messages, "more " * 50]), [*messages, "more " * 50]))
    _check(url, stored)
    with SessionManager.open(url) as manager:
        saver = LifecycleSaver(manager)
        saver.prune(THREADS)
        _check(url, {thread_id: checkpoints[-1:] for thread_id, checkpoints in stored.items()})
        saver.prune(THREADS, strategy="delete")
    with connected(url) as connection:
        for table in (t.graph_checkpoints, t.graph_values):
            assert connection.scalar(sa.select(sa.func.count()).select_from(table)) == 0
