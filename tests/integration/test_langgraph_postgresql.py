"""LangGraph's checkpoints on PostgreSQL: a removal that is under way, and what the planner thinks of a read."""

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

pytest.importorskip("langgraph.checkpoint.base", reason="langgraph-checkpoint is not installed")

from lifecycle import SessionManager
from lifecycle.adapters.langgraph import LifecycleSaver
from lifecycle.operations.requests import ReadGraph
from tests.plans import work_of
from tests.threads import put_list, thread_config

PATIENCE = 30.0


def _texts(count: int) -> list[str]:
    return [secrets.token_urlsafe(160) for _ in range(count)]


def _wait_for(connection: psycopg.Connection[Any], waiting: int) -> None:
    """Until so many wait for a lock in the database."""
    asked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    pause, left = threading.Event(), PATIENCE
    while connection.execute(asked).fetchone() != (waiting,):
        assert left > 0
        pause.wait(0.005)
        left -= 0.005


def test_a_put_shares_nothing_with_what_is_being_removed(migrated_postgres_url: str) -> None:
    """It waits behind the removal of the checkpoint that it builds on, of which others keep the row: it brings its own."""
    with (
        SessionManager.open(migrated_postgres_url) as one,
        psycopg.connect(migrated_postgres_url) as holder,
        psycopg.connect(migrated_postgres_url, autocommit=True) as looker,
        ThreadPoolExecutor(2) as pool,
    ):
        saver, other = LifecycleSaver(one), LifecycleSaver(one)
        messages = _texts(6)
        first = put_list(saver, thread_config("t", run_id="first"), 1, messages)
        put_list(saver, first, 2, [*messages[:3], *_texts(1)])
        assert other.get_tuple(first) is not None
        holder.execute("SELECT FROM sessions WHERE session_id = 't' FOR UPDATE")
        removal = pool.submit(saver.delete_for_runs, ["first"])
        _wait_for(looker, 1)
        longer = [*messages, *_texts(1)]
        put = pool.submit(put_list, other, first, 3, longer)
        _wait_for(looker, 2)
        holder.commit()
        removal.result(PATIENCE)
        found = LifecycleSaver(one).get_tuple(put.result(PATIENCE))
    assert found is not None
    assert found.checkpoint["channel_values"] == {"messages": longer}


@pytest.mark.parametrize("url", ["migrated_postgres_url", "migrated_postgres15_url"])
def test_a_read_is_not_thought_dear(url: str, request: pytest.FixtureRequest) -> None:
    """Which would have it compiled, for most of a second: a long thread whose list is a window."""
    own = str(request.getfixturevalue(url))
    with SessionManager.open(own) as manager:
        saver = LifecycleSaver(manager)
        config, messages = thread_config("t"), _texts(20)
        for step in range(100):
            messages = [*messages[1:], *_texts(1)]
            config = put_list(saver, config, step, messages)
    with psycopg.connect(own) as connection:
        connection.execute("ANALYZE")
        dear = connection.execute("SELECT current_setting('jit_above_cost')::float8").fetchone()
        work, answer = work_of(connection, ReadGraph("", "t", "", None))
    assert len(answer[1]) == 20
    assert dear is not None
    assert work.cost < dear[0]
