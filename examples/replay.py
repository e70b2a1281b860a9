"""Replay recorded agent trajectories as sessions; killed at any point, it goes on where the last save left it.

    python examples/replay.py TRAJECTORIES --url sqlite:///lifecycle.db [--copies 200] [--seed 1] [--verify]

Each file becomes `copies` sessions with a seeded fate: finished, failed, suspended and resumed midway, or abandoned.
A step's messages go first, under ids of their own, then the save with its number: whichever of the two a crash cut
off, doing the step again adds nothing twice.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

from lifecycle import Session, SessionManager

FATES = ("finished", "failed", "paused", "abandoned")


@dataclass(frozen=True)
class Replay:
    """One session to be: its id, the steps that it gets, and what becomes of it."""

    session_id: str
    name: str
    steps: list[dict[str, Any]]
    fate: str

    def messages(self, number: int) -> list[dict[str, Any]]:
        """What is said in a step: the agent's response and what it observed."""
        step = self.steps[number - 1]
        said = [("assistant", step.get("response", step.get("content", ""))), ("tool", step.get("observation", ""))]
        # A message holds 100,000 characters; the step itself is whole in the conversation.
        return [
            {
                "role": role,
                "content": text if len(json.dumps(text)) < 90_000 else "(long)",
                "message_id": f"{number}-{role}",
            }
            for role, text in said
        ]

    def context(self, number: int) -> dict[str, Any]:
        """The environment's state at a step, as recorded."""
        state = self.steps[number - 1].get("state", {})
        return {"state": json.loads(state) if isinstance(state, str) and state.strip() else state}


def replays(files: list[Path], copies: int, seed: int) -> Iterator[Replay]:
    """The sessions that the files make: the same ones for the same seed."""
    for file in files:
        recorded = json.loads(file.read_text())
        steps = recorded.get("trajectory") or recorded["history"]
        for copy in range(copies):
            chance = random.Random(f"{seed}/{file.stem}/{copy}")
            fate = chance.choice(FATES)
            taken = steps if fate != "abandoned" else steps[: chance.randint(1, len(steps))]
            yield Replay(f"replay-{seed}-{file.stem}-{copy}", file.stem, taken, fate)


def play(manager: SessionManager, replay: Replay) -> None:
    """Carry a session on from its last save to its fate."""
    session: Session = manager.open_session(replay.session_id, kind="replay", title=replay.name)
    if session.state not in {"active", "suspended"}:
        return
    if session.state == "suspended":
        manager.resume_session(session.session_id)
    for number in range((session.step or 0) + 1, len(replay.steps) + 1):
        manager.add_messages(session.session_id, replay.messages(number))
        manager.save_state(
            session.session_id,
            append=[replay.steps[number - 1]],
            context=replay.context(number),
            step=number,
            phase="acting",
            token=f"step-{number}",
        )
        if replay.fate == "paused" and number == (len(replay.steps) + 1) // 2:
            manager.suspend_session(session.session_id, reason="waits for its user")
            manager.resume_session(session.session_id, reason="its user is back")
    if replay.fate in {"finished", "paused"}:
        manager.complete_session(session.session_id)
    elif replay.fate == "failed":
        manager.end_session(session.session_id, reason="the agent gave up")


def differences(manager: SessionManager, replay: Replay) -> list[str]:
    """What the database has otherwise than the file; nothing for a session that was pruned."""
    state = manager.load_state(replay.session_id, any_state=True)
    if state is None:
        return []
    found = []
    if json.dumps(state.conversation) != json.dumps(replay.steps):
        found.append(f"{replay.session_id}: the steps differ")
    if state.step != len(replay.steps) or json.dumps(state.context) != json.dumps(replay.context(len(replay.steps))):
        found.append(f"{replay.session_id}: the last state differs")
    wanted = [message for i in range(len(replay.steps)) for message in replay.messages(i + 1)]
    there = manager.get_messages(replay.session_id, limit=500)
    if [(m.role, m.content, m.message_id) for m in there] != [
        (m["role"], m["content"], m["message_id"]) for m in wanted
    ]:
        found.append(f"{replay.session_id}: the messages differ")
    return found


def main() -> int:
    """Replay, or with --verify compare."""
    parser = argparse.ArgumentParser(description="Replay recorded agent trajectories as sessions.")
    parser.add_argument("trajectories", nargs="+", type=Path, help=".traj files, or folders of them")
    parser.add_argument("--url", default="sqlite:///lifecycle.db")
    parser.add_argument("--copies", type=int, default=200, help="sessions made of each file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verify", action="store_true", help="compare the database with the files instead")
    options = parser.parse_args()
    files = sorted(f for path in options.trajectories for f in (path.glob("*.traj") if path.is_dir() else [path]))
    if not files:
        parser.error("no .traj files there")
    plan = list(replays(files, options.copies, options.seed))
    with SessionManager.open(options.url) as manager:
        manager.setup()
        if not options.verify:
            for replay in track(plan, "replaying", disable=not sys.stderr.isatty()):
                play(manager, replay)
            print(json.dumps({"sessions": len(plan), "steps": sum(len(replay.steps) for replay in plan)}))
            return 0
        wrong = [line for replay in plan for line in differences(manager, replay)]
    print("\n".join([*wrong, json.dumps({"sessions": len(plan), "different": len(wrong)})]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
