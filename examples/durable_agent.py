"""An agent that survives its process: kill it with -9, start it again, and it goes on at the next step.

    python -m examples.durable_agent                 # starts, or goes on with, a session of twenty steps
    python -m examples.durable_agent --session two   # another one; run several at once if you like

Each step is one save: the plan, the conversation, the step's number. What was acknowledged is not done again.
"""

import argparse
import os
import sys
import time
from datetime import UTC, datetime

from lifecycle import SessionManager, SessionRunner
from lifecycle.run import Run


def make_runner(url: str, steps: int, seconds: float, ttl: float) -> SessionRunner:
    """A runner with one handler, for sessions of the kind `agent`."""
    runner = SessionRunner(url, ttl=ttl, concurrency=4)

    @runner.handler("agent")
    def agent(run: Run) -> None:
        if run.step:
            print(f"{run.session_id}: going on after step {run.step}", flush=True)
        for step in range(run.step + 1, steps + 1):
            time.sleep(seconds)  # here an agent would think, call its model and its tools
            thought = {"role": "assistant", "content": f"step {step} done by process {os.getpid()}"}
            run.save(step=step, phase="working", append=[thought])
            print(f"{run.session_id}: step {step} of {steps} saved (process {os.getpid()})", flush=True)
        print(f"{run.session_id}: finished", flush=True)

    return runner


def main() -> int:
    """Begin the session unless it is there, then run whatever waits until nothing does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="sqlite:///durable_agent.db", help="the database")
    parser.add_argument("--session", default="one", help="the session's id")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.5, help="how long a step takes")
    parser.add_argument("--ttl", type=float, default=3.0, help="seconds until a dead process's session is taken over")
    options = parser.parse_args()
    with SessionManager.open(options.url) as manager:
        manager.setup()
        manager.open_session(options.session, kind="agent", available_at=datetime.now(UTC))
    with make_runner(options.url, options.steps, options.seconds, options.ttl) as runner:
        return 0 if runner.run(until_idle=True) else 75


if __name__ == "__main__":
    sys.exit(main())
