"""The examples with agent frameworks, in processes that are killed for real."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lifecycle import SessionManager
from tests.acceptance.test_durable_agent import said_until

TURNS = 6
# What was printed when the process is killed: in the middle of a turn, then behind one, then it may finish.
KILLS = (r"looking up order 2 ", r"turn 4 of 6", None)


@pytest.fixture(params=["migrated_sqlite_url", "migrated_postgres_url"])
def store(request: pytest.FixtureRequest) -> str:
    """A file, or a server: how each database is spoken to is the adapters' own tests' to show."""
    return str(request.getfixturevalue(request.param))


def talk(example: str, url: str, cwd: Path) -> list[str]:
    """Start the example, kill it where `KILLS` says, and start it again; the lines that it printed."""
    said: list[str] = []
    options = ("--turns", str(TURNS), "--seconds", "0.05", *(("--ttl", "1") if example == "openai_agent" else ()))
    for kill_at in KILLS:
        said += said_until(kill_at, "-m", f"examples.{example}", "--url", url, *options, cwd=cwd)
    return said


def test_an_openai_agent_goes_on_in_a_second_process(store: str, tmp_path: Path) -> None:
    """Killed in the middle of a turn and behind one: the conversation is that of a process that nobody killed."""
    pytest.importorskip("agents", reason="openai-agents is not installed")
    from lifecycle.adapters.openai_agents import LifecycleSession

    said = talk("openai_agent", store, tmp_path)
    assert "going on after turn 1, with 1 items of an unfinished one taken back" in said
    assert said[-1] == "finished"
    with SessionManager.open(store) as manager:
        items: list[Any] = asyncio.run(LifecycleSession("one", manager).get_items())
    assert [item.get("content") if item.get("role") == "user" else item["type"] for item in items] == [
        part
        for turn in range(1, TURNS + 1)
        for part in (f"Where is order {turn}?", "function_call", "function_call_output", "message")
    ]
    assert [item["call_id"] for item in items if item.get("type") == "function_call"] == [
        f"call_{turn}" for turn in range(1, TURNS + 1)
    ]


def test_an_adk_runner_goes_on_in_a_second_process(store: str, tmp_path: Path) -> None:
    """Killed in the middle of a turn and behind one: every answer stands once, and the state counts each turn once."""
    pytest.importorskip("google.adk", reason="google-adk is not installed")
    from lifecycle.adapters.adk import LifecycleSessionService

    said = talk("adk_runner", store, tmp_path)
    assert "going on after turn 1, the next one having been taken back" in said
    assert said[-1] == "finished"
    with SessionManager.open(store) as manager:
        service = LifecycleSessionService(manager)
        session = asyncio.run(service.get_session(app_name="support", user_id="ada", session_id="one"))
        stored = manager.get_session(service.key("support", "ada", "one"))
    assert session is not None
    assert session.state["looked_up"] == TURNS
    final = [event for event in session.events if event.author == "support" and event.is_final_response()]
    assert [event.content.parts[0].text for event in final] == [
        f"Order {turn} is on its way" for turn in range(1, TURNS + 1)
    ]
    assert stored is not None
    assert (stored.title, stored.user_id, stored.agent_id) == ("Where is order 1?", "ada", "support")


def test_runner_calls_from_one_loop_after_the_other(migrated_postgres_url: str) -> None:
    """`Runner.run_sync` and loops of one's own, with one manager on PostgreSQL: the conversation grows by each."""
    agents = pytest.importorskip("agents", reason="openai-agents is not installed")
    from examples.openai_agent import make_agent
    from lifecycle.adapters.openai_agents import LifecycleSession

    agents.set_tracing_disabled(True)
    with SessionManager.open(migrated_postgres_url) as manager:
        session = LifecycleSession("one", manager)
        for turn in range(1, 4):
            result = agents.Runner.run_sync(make_agent(0), f"Where is {turn}?", session=session)
            assert result.final_output == f"Order {2 * turn - 1} is on its way"
            # It leaves its loop open for the next call; here it is to have another one.
            asyncio.get_event_loop().close()
            result = asyncio.run(agents.Runner.run(make_agent(0), f"Where is {turn}?", session=session))
            assert result.final_output == f"Order {2 * turn} is on its way"
        assert len(asyncio.run(session.get_items())) == 24
