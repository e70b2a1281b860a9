"""A process that runs the sessions of a chaos run, and writes down in their ledgers what it does.

    python -m tests.chaos.player URL LEDGERS --steps 20

Its events are JSON lines on stderr. It ends with 75 where there is no database to begin with.
"""

import argparse
import contextlib
import random
import sys
from pathlib import Path
from typing import Any

from lifecycle import SessionRunner, Settings
from lifecycle.errors import LeaseLost, StorageUnavailable
from lifecycle.log import configure_logging
from lifecycle.run import Run, RunStopped
from tests.chaos.crash_points import POINTS, arm
from tests.chaos.ledger import Ledger

KIND = "chaos"
NO_DATABASE = 75
# A fault is no session's own doing: none is ever given up.
ENDLESS = 1_000_000


class Stubborn:
    """The fence of a lease whose holder does not look at the clock: only the database can refuse what it writes."""

    def __init__(self, run: Run) -> None:
        self.tenant, self.session_id = run.lease.tenant, run.session_id
        self._fence = (run.lease.holder, run.lease.epoch)

    def fence(self) -> tuple[str, int]:
        """Holder and epoch."""
        return self._fence


class Stumble(Exception):
    """A handler fails."""


class Player:
    """Plays sessions of so many steps, each taking some time; a few of them fail at first."""

    def __init__(self, ledger: Ledger, steps: int, seconds: float, stumbles: float) -> None:
        self._ledger = ledger
        self._steps = steps
        self._seconds = seconds
        self._stumbles = stumbles

    def play(self, run: Run) -> None:
        """Do what is left of a session's steps."""
        epoch = run.lease.epoch
        self._ledger.note("claimed", run.session_id, epoch, version=run.session.version)
        for step in range(run.step + 1, self._steps + 1):
            self._ledger.note("begun", run.session_id, epoch, step=step)
            run.lost.wait(random.uniform(0.5, 1.5) * self._seconds)
            if random.random() < self._stumbles:
                raise Stumble
            self._speak(run, step)
            self._save(run, step)
        self._ledger.note("returned", run.session_id, epoch)

    def block(self, run: Run) -> None:
        """Hold a session until the lease is lost."""
        self._ledger.note("claimed", run.session_id, run.lease.epoch, version=run.session.version)
        run.lost.wait()

    @staticmethod
    def _speak(run: Run, step: int) -> None:
        """A repeat of the step says the same again, under the same id: it is there once."""
        said: dict[str, Any] = {"role": "assistant", "content": f"step {step}", "message_id": f"step {step}"}
        try:
            run.add_message(**said)
        except LeaseLost:
            # Where the save still gets through, this does too.
            with contextlib.suppress(LeaseLost):
                run.manager.add_message(run.session_id, lease=Stubborn(run), **said)

    def _save(self, run: Run, step: int) -> None:
        epoch = run.lease.epoch
        done = {"step": step, "epoch": epoch}
        try:
            version = run.save(step=step, append=[done], context=done)
        except RunStopped:
            saved = run.state
            version = 0 if saved is None else saved.version
            self._ledger.note("acknowledged", run.session_id, epoch, step=step, version=version)
            raise
        except LeaseLost as lost:
            if lost.current is None:
                self._save_nevertheless(run, step)
            else:
                self._ledger.note("refused", run.session_id, epoch, step=step)
            raise
        except StorageUnavailable:
            self._ledger.note("unknown", run.session_id, epoch, step=step)
            raise
        self._ledger.note("acknowledged", run.session_id, epoch, step=step, version=version)

    def _save_nevertheless(self, run: Run, step: int) -> None:
        """What this process would not send any more, sent: right where nobody took over yet, to be refused else."""
        epoch = run.lease.epoch
        done = {"step": step, "epoch": epoch}
        try:
            version = run.manager.save_state(
                run.session_id, step=step, append=[done], context=done, lease=Stubborn(run)
            )
        except LeaseLost:
            self._ledger.note("refused", run.session_id, epoch, step=step)
        except StorageUnavailable:
            self._ledger.note("unknown", run.session_id, epoch, step=step)
        else:
            self._ledger.note("acknowledged", run.session_id, epoch, step=step, version=version)


def main() -> int:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("ledgers", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.5, help="how long a step takes, about")
    parser.add_argument("--ttl", type=float, default=1.5)
    parser.add_argument("--concurrency", type=int, default=10)
    parser.add_argument("--block", action="store_true", help="hold what is claimed and do nothing")
    parser.add_argument("--stumbles", type=float, default=0.0, help="share of steps that fail at first")
    parser.add_argument("--crash", choices=POINTS, help="die there")
    parser.add_argument("--occurrence", type=int, default=1, help="of the point, at which to die")
    parser.add_argument("--crashes", type=float, default=0.0, help="share of processes that die at a point by chance")
    options = parser.parse_args()
    configure_logging("info", "json")
    player = Player(Ledger(options.ledgers), options.steps, options.seconds, options.stumbles)
    if options.crash is not None:
        arm(options.crash, options.occurrence, options.ledgers)
    elif random.random() < options.crashes:
        point = random.choice(POINTS)
        often = point.endswith(("SaveState", "AddMessages", "ClaimSessions"))
        arm(point, random.randint(2, 60 if often else 8), options.ledgers)
    settings = Settings(database={"url": options.url})
    with SessionRunner(settings, ttl=options.ttl, concurrency=options.concurrency, drain_timeout=20.0) as runner:
        register = runner.handler(KIND, max_attempts=ENDLESS, max_rescues=ENDLESS, backoff=0.05, longest_backoff=0.2)
        register(player.block if options.block else player.play)
        try:
            return 0 if runner.run() else 1
        except StorageUnavailable:
            return NO_DATABASE


if __name__ == "__main__":
    sys.exit(main())
