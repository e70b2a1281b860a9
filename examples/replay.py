"""Replay recorded agent runs as sessions; killed at any point, it goes on where the last save left it.

    python examples/replay.py [TRAJECTORIES] [--copies 200] [--seed 1] [--verify]

Each file becomes `copies` sessions with a seeded fate: finished, failed, suspended and resumed midway, old (finished,
and soon past its retention), or abandoned. A step's messages go first, under ids of their own, then the save with its
number and a token: whichever of the two a crash cut off, doing the step again adds nothing twice.
"""

import argparse
import json
import os
import shlex
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from examples.recordings import FATES, Replay, replays
from examples.verification import Verification, was_pruned
from lifecycle import InvalidTransition, LifecycleError, Session, SessionManager, load_settings

HERE = Path(__file__).resolve().parent
BACK = "its user is back"
FAILED, STOPPED = 1, 130


class Player:
    """Plays sessions on from their last save, in any number of threads; `stop` ends them after the step under way."""

    def __init__(self, manager: SessionManager) -> None:
        self.manager = manager
        self.stop = threading.Event()
        self.saved = 0
        self._counting = threading.Lock()

    def play(self, replay: Replay, *, returned: bool = False) -> None:
        """Carry a session on: until it waits for its user, or when that one has `returned`, to its end."""
        while not self.stop.is_set():
            try:
                self._play(replay, returned=returned)
            except InvalidTransition as refused:
                # The last step was so long ago that the worker took the session for abandoned: open it again.
                if refused.state != "expired":
                    raise
            else:
                return

    def _play(self, replay: Replay, *, returned: bool) -> None:
        session = self._open(replay)
        if session is None or (session.state == "suspended" and not returned):
            return
        if session.state == "suspended":
            session = self.manager.resume_session(session.session_id, reason=BACK)
        if session.state != "active":
            return
        done = session.step or 0
        returned = returned or session.reason == BACK
        for step in replay.steps[done : None if returned else replay.pause]:
            if self.stop.is_set():
                return
            self.manager.add_messages(session.session_id, step.messages)
            self.manager.save_state(session.session_id, **step.state)
            with self._counting:
                self.saved += 1
        if replay.pause and not returned:
            self.manager.suspend_session(session.session_id, reason="waits for its user")
        elif replay.fate.left == "completed":
            self.manager.complete_session(session.session_id)
        elif replay.fate.left == "ended":
            self.manager.end_session(session.session_id, reason="the agent gave up")

    def _open(self, replay: Replay) -> Session | None:
        """The session as the store has it, made if it is new; None when it was there and is pruned."""
        session = self.manager.get_session(replay.session_id)
        if session is None:
            if was_pruned(self.manager, replay.session_id):
                return None
            session = self.manager.open_session(replay.session_id, kind=replay.fate.kind, title=replay.title)
        unfinished = session.step != len(replay.steps) or replay.fate.left != "active"
        if session.state == "expired" and unfinished:
            session = self.manager.reopen_session(session.session_id, reason="the replay goes on")
        return session


def run(manager: SessionManager, plan: list[Replay], threads: int) -> dict[str, Any]:
    """Play all sessions, then those again whose users had to come back; what was done."""
    began = time.monotonic()
    player = Player(manager)
    returning = [replay for replay in plan if replay.pause]
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), disable=not sys.stderr.isatty(),
    )  # fmt: skip
    with bar, ThreadPoolExecutor(threads) as pool:
        try:
            for what, group, returned in (("sessions", plan, False), ("users back", returning, True)):
                futures = [pool.submit(player.play, replay, returned=returned) for replay in group]
                for future in bar.track(as_completed(futures), total=len(group), description=what):
                    future.result()
        except BaseException:
            player.stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    steps = sum(len(replay.steps) for replay in plan)
    seconds = round(time.monotonic() - began, 2)
    return {"sessions": len(plan), "steps": steps, "saved": player.saved, "seconds": seconds}


def verify(manager: SessionManager, plan: list[Replay], *, as_json: bool) -> int:
    """Compare the store with the files, and say what became of the sessions of each fate."""
    found = Verification()
    found.check(manager, plan)
    for line in found.wrong:
        print(line, file=sys.stderr)
    if as_json:
        print(json.dumps(vars(found) | {"sessions": len(plan)}))
        return FAILED if found.wrong else 0
    table = Table("fate", "kind", "sessions", "should be", "are")
    for fate in FATES:
        states: Counter[str] = found.states.get(fate.name, Counter())
        are = ", ".join(f"{count:,} {state}" for state, count in sorted(states.items()))
        table.add_row(fate.name, fate.kind, f"{sum(states.values()):,}", fate.settled, are)
    Console().print(table)
    print(
        f"{len(plan):,} sessions; {found.compared:,} compared with their files byte for byte;"
        f" {len(found.wrong):,} differences; {found.waiting:,} still wait for the worker"
    )
    return FAILED if found.wrong else 0


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Replay recorded agent runs as sessions.")
    trajectories = HERE / "trajectories"
    parser.add_argument("trajectories", nargs="*", type=Path, default=[trajectories], help=".traj files, or folders")
    parser.add_argument("--config", type=Path, default=HERE / "replay.yaml", help="the configuration: short policies")
    parser.add_argument("--url", help="the database, instead of the configured one")
    parser.add_argument("--copies", type=int, default=200, help="sessions made of each file")
    parser.add_argument("--seed", type=int, default=1, help="which fates they have")
    parser.add_argument("--threads", type=int, default=4, help="sessions played at a time")
    parser.add_argument("--verify", action="store_true", help="compare the database with the files instead")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    chosen = parser.parse_args()
    chosen.files = sorted(
        file for path in chosen.trajectories for file in (path.glob("*.traj") if path.is_dir() else [path])
    )
    if not chosen.files:
        parser.error("no .traj files there")
    return chosen


def main() -> int:
    """Replay or verify; the exit code: 1 when it failed or something differs, 130 when it was stopped."""
    chosen = options()
    if chosen.url:
        os.environ["LIFECYCLE_DATABASE__URL"] = chosen.url
    try:
        plan = list(replays(chosen.files, chosen.copies, chosen.seed))
        with SessionManager.open(load_settings(chosen.config)) as manager:
            manager.setup()
            if chosen.verify:
                return verify(manager, plan, as_json=chosen.json)
            done = run(manager, plan, chosen.threads)
    except KeyboardInterrupt:
        print(f"Stopped; what was saved stays. To go on: {shlex.join(sys.orig_argv)}", file=sys.stderr)
        return STOPPED
    except LifecycleError as error:
        print(f"{error}\nWhat was saved stays. To go on: {shlex.join(sys.orig_argv)}", file=sys.stderr)
        return FAILED
    if chosen.json:
        print(json.dumps(done))
    else:
        before = done["steps"] - done["saved"]
        print(
            f"{done['sessions']:,} sessions with {done['steps']:,} steps:"
            f" {done['saved']:,} saved in {done['seconds']} s, {before:,} were there before"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
