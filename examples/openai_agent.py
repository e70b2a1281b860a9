"""An agent of the OpenAI Agents SDK whose conversation survives its process: kill it with -9, start it again, it goes on.

    pip install 'session-lifecycle[openai-agents]'
    python -m examples.openai_agent                 # starts, or goes on with, a conversation of six turns
    python -m examples.openai_agent --session two   # another one; run several at once if you like

Nothing is asked over the network: the model is a script. Each turn is a question, a call of a tool and an answer. A turn
that a killed process left unfinished is taken back, item by item, and begun anew.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, ModelResponse, Runner, Usage, function_tool, set_tracing_disabled
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from lifecycle import SessionManager
from lifecycle.adapters.openai_agents import LifecycleSession


class Script(Model):  # type: ignore[misc]  # the SDK is not followed where types are checked
    """A model that looks an order up, and then says what the tool told it."""

    async def get_response(self, *_: Any, input: Any, **__: Any) -> ModelResponse:  # noqa: A002 - the SDK's name
        """What comes next in the conversation."""
        last, number = input[-1], sum(item.get("role") == "user" for item in input)
        output: Any
        if last.get("role") == "user":
            output = ResponseFunctionToolCall(
                type="function_call", call_id=f"call_{number}", name="look_up", arguments=f'{{"order": {number}}}'
            )
        else:
            said = ResponseOutputText(type="output_text", text=f"Order {number} {last['output']}", annotations=[])
            output = ResponseOutputMessage(
                type="message", id=f"msg_{number}", role="assistant", status="completed", content=[said]
            )
        return ModelResponse(output=[output], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        """Not needed here."""
        raise NotImplementedError


def make_agent(seconds: float) -> Agent[None]:
    """An agent with one tool, which takes its time."""

    @function_tool  # type: ignore[untyped-decorator]  # the SDK is not followed where types are checked
    def look_up(order: int) -> str:
        """Where an order is."""
        print(f"  looking up order {order} (process {os.getpid()})", flush=True)
        time.sleep(seconds)
        return "is on its way"

    return Agent(name="support", model=Script(), tools=[look_up])


def answered(item: Any) -> bool:
    """Whether an item is the end of a turn."""
    return bool(item.get("role") == "assistant")


async def unfinished(session: LifecycleSession) -> int:
    """Take back what was stored of a turn that was not finished; how many items that were."""
    count = 0
    while (last := await session.get_items(1)) and not answered(last[0]):
        await session.pop_item()
        count += 1
    return count


def main() -> int:
    """Talk until the conversation has all its turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="sqlite:///openai_agent.db", help="the database")
    parser.add_argument("--session", default="one", help="the session's id")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=0.5, help="how long the tool takes")
    parser.add_argument("--ttl", type=float, default=3.0, help="seconds until a dead process's session is taken over")
    options = parser.parse_args()
    set_tracing_disabled(True)
    agent = make_agent(options.seconds)
    with SessionManager.open(options.url) as manager:
        manager.setup()
        manager.open_session(options.session, kind="support", agent_id=agent.name)
        # One process at a time: what a former one writes late is refused.
        with manager.lease(options.session, ttl=options.ttl, wait=60) as lease:
            session = LifecycleSession(options.session, manager, lease=lease)
            return talk(agent, session, options.turns)


def talk(agent: Agent[None], session: LifecycleSession, turns: int) -> int:
    """Go on after the last turn that was finished."""
    removed = asyncio.run(unfinished(session))
    done = sum(map(answered, asyncio.run(session.get_items())))
    if done or removed:
        print(f"going on after turn {done}, with {removed} items of an unfinished one taken back", flush=True)
    for turn in range(done + 1, turns + 1):
        result = Runner.run_sync(agent, f"Where is order {turn}?", session=session)
        print(f"turn {turn} of {turns}: {result.final_output} (process {os.getpid()})", flush=True)
    print("finished", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
