"""A runner of Google ADK whose session survives its process: kill it with -9, start it again, and it goes on.

    pip install 'session-lifecycle[adk]'
    python -m examples.adk_runner                 # starts, or goes on with, a session of six turns
    python -m examples.adk_runner --session two   # another one; run several at once if you like

Nothing is asked over the network: the model is a script. Each turn is a question, a call of a tool, which counts in the
session's state, and an answer. A turn that a killed process left unfinished is taken back, with what it changed in the
state, and begun anew.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.events import Event
from google.adk.models import BaseLlm, LlmRequest, LlmResponse
from google.adk.runners import Runner
from google.adk.sessions import Session
from google.adk.tools import ToolContext
from google.genai import types

from lifecycle import SessionManager
from lifecycle.adapters.adk import LifecycleSessionService

APP, USER = "support", "ada"


class Script(BaseLlm):  # type: ignore[misc]  # ADK is not followed where types are checked
    """A model that looks an order up, and then says what the tool told it."""

    async def generate_content_async(
        self, llm_request: LlmRequest, *_: bool, **__: bool
    ) -> AsyncGenerator[LlmResponse, None]:
        """What comes next in the conversation."""
        last = llm_request.contents[-1].parts[0]
        if last.function_response is None:
            order = int(last.text.split()[-1].strip("?"))
            part = types.Part(function_call=types.FunctionCall(name="look_up", args={"order": order}))
        else:
            part = types.Part(text=last.function_response.response["result"])
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


def make_agent(seconds: float) -> LlmAgent:
    """An agent with one tool, which takes its time."""

    def look_up(order: int, tool_context: ToolContext) -> str:
        """Where an order is."""
        print(f"  looking up order {order} (process {os.getpid()})", flush=True)
        tool_context.state["looked_up"] = tool_context.state.get("looked_up", 0) + 1
        time.sleep(seconds)
        return f"Order {order} is on its way"

    return LlmAgent(name="support", model=Script(model="script"), tools=[look_up])


def answers(event: Event) -> bool:
    """Whether an event is the end of a turn."""
    return bool(event.author != "user" and event.is_final_response())


async def opened(service: LifecycleSessionService, session_id: str) -> Session:
    """The session, which is created at the first time."""
    who: dict[str, Any] = {"app_name": APP, "user_id": USER, "session_id": session_id}
    return await service.get_session(**who) or await service.create_session(**who)


async def unfinished(runner: Runner, session: Session) -> bool:
    """Take back the last turn if it was not finished; whether it was not."""
    turns = [event for event in session.events if event.actions.rewind_before_invocation_id is None]
    if not turns or session.events[-1] is not turns[-1] or answers(turns[-1]):
        return False
    await runner.rewind_async(user_id=USER, session_id=session.id, rewind_before_invocation_id=turns[-1].invocation_id)
    return True


async def talk(service: LifecycleSessionService, session_id: str, turns: int, seconds: float) -> None:
    """Go on after the last turn that was finished."""
    runner = Runner(app_name=APP, agent=make_agent(seconds), session_service=service)
    taken_back = await unfinished(runner, await opened(service, session_id))
    done = (await opened(service, session_id)).state.get("looked_up", 0)
    if done or taken_back:
        print(f"going on after turn {done}{', the next one having been taken back' if taken_back else ''}", flush=True)
    for turn in range(done + 1, turns + 1):
        question = types.Content(role="user", parts=[types.Part(text=f"Where is order {turn}?")])
        async for event in runner.run_async(user_id=USER, session_id=session_id, new_message=question):
            if answers(event):
                print(f"turn {turn} of {turns}: {event.content.parts[0].text} (process {os.getpid()})", flush=True)
    print("finished", flush=True)


def main() -> int:
    """Talk until the session has all its turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="sqlite:///adk_runner.db", help="the database")
    parser.add_argument("--session", default="one", help="the session's id")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=0.5, help="how long the tool takes")
    options = parser.parse_args()
    with SessionManager.open(options.url) as manager:
        manager.setup()
        asyncio.run(talk(LifecycleSessionService(manager), options.session, options.turns, options.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
