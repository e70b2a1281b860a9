"""The example with LangGraph, in processes that are killed for real."""

from pathlib import Path

import pytest

pytest.importorskip("langgraph.graph", reason="langgraph is not installed")

from lifecycle import SessionManager
from lifecycle.adapters.langgraph import LifecycleSaver
from tests.acceptance.test_durable_agent import said_until

# What is printed when the process is killed: in the middle of a node, then behind one, then while a person is waited for;
# and what the next one is told.
KILLS = ((r"looking up piece 2 ", None), (r"looking up piece 4 ", None), (r"waiting:", None), (None, "send it"))


@pytest.fixture(params=["migrated_sqlite_url", "migrated_postgres_url"])
def store(request: pytest.FixtureRequest) -> str:
    """A file, or a server: how each database is spoken to is the adapters' own tests' to show."""
    return str(request.getfixturevalue(request.param))


def test_an_interrupt_outlives_its_process(store: str, tmp_path: Path) -> None:
    """Killed in the middle of nodes and while it waits: every step is there once, and a second process takes the answer."""
    said: list[str] = []
    for kill_at, answer in KILLS:
        options = ["--url", store, "--seconds", "0.05", "--ttl", "1"] + (["--answer", answer] if answer else [])
        said += said_until(kill_at, "-m", "examples.langgraph_graph", *options, cwd=tmp_path)
    assert "going on after piece 1, next is look_up" in said
    assert "going on after piece 3, next is look_up" in said
    assert "waiting: 5 pieces cost 150: send it?" in said
    assert said[-1] == "finished: Done as told: send it"
    with SessionManager.open(store) as manager:
        found = LifecycleSaver(manager).get_tuple({"configurable": {"thread_id": "one"}})
        session = manager.get_session("one")
    assert found is not None
    assert [message.id for message in found.checkpoint["channel_values"]["messages"] if message.type == "ai"] == [
        *(f"piece-{number}" for number in range(1, 6)),
        "sent",
    ]
    assert session is not None
    assert (session.kind, session.state) == ("offers", "active")
