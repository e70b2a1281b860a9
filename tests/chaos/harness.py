"""Runners that are killed, stopped and cut off while they work on hundreds of sessions: what was promised has to hold.

    python -m tests.chaos.harness --minutes 10 --database postgresql

Ends with 1 where something is broken, says what, and keeps the ledgers. Ctrl-C ends the faults, and checks what there
is.
"""

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lifecycle import SessionManager, StorageUnavailable
from lifecycle.log import configure_logging
from tests.chaos import invariants
from tests.chaos.cast import Cast
from tests.chaos.faults import Faults
from tests.chaos.ledger import Line, read_ledgers
from tests.chaos.player import KIND
from tests.chaos.stage import KINDS, Kind, Stage

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """How large a run is, and how long."""

    database: Kind
    seed: int = 1
    # Of the faults; the end takes as long as the sessions take, up to `deadline`.
    seconds: float = 15.0
    sessions: int = 60
    players: int = 3
    steps: int = 20
    step_seconds: float = 0.3
    ttl: float = 1.5
    deadline: float = 60.0
    # The share of steps that fail at first, and of processes that kill themselves around a commit.
    stumbles: float = 0.02
    crashes: float = 0.5
    # How much longer than the lease's time a session of a dead process may wait for the next one.
    patience: float = 10.0

    @property
    def concurrency(self) -> int:
        """Sessions for each player: the last one that is left has room for all."""
        return self.sessions


@dataclass(slots=True)
class Report:
    """What happened in a run, and what is broken."""

    plan: Plan
    counts: dict[str, int] = field(default_factory=dict)
    # In seconds: of sessions of killed processes; with other faults meanwhile, and without any.
    longest_takeover: float = 0.0
    longest_calm_takeover: float = 0.0
    # Errors that the players logged; for people to look at.
    errors: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    interrupted: bool = False


class Run:
    """One run of a plan, in a directory."""

    def __init__(self, plan: Plan, directory: Path, *, progress: bool = False) -> None:
        self._plan = plan
        self._directory = directory
        self._ledgers = directory / "ledgers"
        self._logs = directory / "logs"
        self._progress = progress
        self._ids: list[str] = []
        self._began = time.monotonic()
        self._report = Report(plan)

    def go(self) -> Report:
        """Do all of it, and look at what came of it."""
        plan = self._plan
        for place in (self._ledgers, self._logs):
            place.mkdir()
        options = {"steps": plan.steps, "seconds": plan.step_seconds, "ttl": plan.ttl, "concurrency": plan.concurrency}
        options |= {"stumbles": plan.stumbles, "crashes": plan.crashes}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        with (
            Stage(plan.database, self._directory, plan.players) as stage,
            SessionManager.open(stage.url) as manager,
            Cast(stage.urls, self._ledgers, self._logs, words) as cast,
        ):
            faults = Faults(stage, cast, plan.ttl, plan.seed)
            self._top_up(manager)
            try:
                # A fault that comes before anybody works is none.
                cast.until(cast.up)
                faults.go_on(time.monotonic() + plan.seconds, lambda: self._top_up(manager))
                self._top_up(manager)
                faults.freeze_all()
                self._say("the faults are over")
                self._await_the_end(manager)
            except KeyboardInterrupt:
                self._report.interrupted = True
                faults.stop()
            self._report.broken += cast.dismiss()
            self._look(manager, cast, faults)
        return self._report

    def _top_up(self, manager: SessionManager) -> None:
        """As many sessions as there should be, as long as the faults last."""
        with contextlib.suppress(StorageUnavailable):
            active = manager.list_sessions(kind=KIND, state="active", limit=1, count=True).total or 0
            self._say(f"{len(self._ids)} sessions, {active} at work")
            for _ in range(self._plan.sessions - active):
                session_id = f"s{len(self._ids):06}"
                manager.open_session(session_id, kind=KIND, available_at=datetime.now(UTC))
                self._ids.append(session_id)

    def _await_the_end(self, manager: SessionManager) -> None:
        deadline = time.monotonic() + self._plan.deadline
        while time.monotonic() < deadline:
            with contextlib.suppress(StorageUnavailable):
                active = manager.list_sessions(kind=KIND, state="active", limit=1, count=True).total
                self._say(f"{active} sessions at work")
                if active == 0:
                    return
            time.sleep(0.5)
        self._report.broken.append(f"not all sessions finished within {self._plan.deadline:g} s after the faults")

    def _look(self, manager: SessionManager, cast: Cast, faults: Faults) -> None:
        """Check the invariants and count."""
        report, plan = self._report, self._plan
        ledgers = read_ledgers(self._ledgers)
        report.broken += [*cast.deserted, *self._wrong(manager, ledgers)]
        waits = invariants.takeovers(ledgers, cast.kills)
        report.longest_takeover = max((wait.seconds for wait in waits), default=0.0)
        report.longest_calm_takeover = max((wait.seconds for wait in waits if wait.calm), default=0.0)
        if report.longest_calm_takeover > plan.ttl + plan.patience:
            slowest = max((wait for wait in waits if wait.calm), key=lambda wait: wait.seconds)
            report.broken.append(f"a takeover took longer than ttl + {plan.patience:g} s: {slowest}")
        events, lines = cast.events(), [line for ledger in ledgers.values() for line in ledger]
        report.counts = {
            "sessions": len(self._ids),
            "acknowledged saves": sum(line.what == "acknowledged" for line in lines),
            "refused late writes": sum(line.what == "refused" for line in lines),
            "unknown outcomes": sum(line.what == "unknown" for line in lines),
            **faults.counts,
            "crashes around commits": cast.crashes.total(),
            "crash points met": len(cast.crashes),
            "takeovers": len(waits),
            "rescues": events["session_rescued"],
            "leases lost": events["lease_lost"],
            "runs lost": events["run_lost"],
            "runs interrupted": events["run_interrupted"],
            "starts without a database": cast.turned_away,
        }
        report.errors = cast.errors()

    def _wrong(self, manager: SessionManager, ledgers: dict[str, list[Line]]) -> Iterator[str]:
        for session_id in self._ids:
            lines = ledgers.get(session_id, [])
            for what in invariants.broken_by(lines):
                yield f"{session_id}: {what}"
            if not self._report.interrupted:
                for what in invariants.unfinished(manager, session_id, self._plan.steps, lines):
                    yield f"{session_id}: {what}"

    def _say(self, what: str) -> None:
        if self._progress:
            print(f"{time.monotonic() - self._began:7.1f} s  {what}", file=sys.stderr, flush=True)  # noqa: T201


def summary(report: Report) -> str:
    """The report for people."""
    lines = [f"{name}: {count:,}" for name, count in report.counts.items()]
    lines += [
        f"longest time to take over: {report.longest_takeover:.2f} s (ttl {report.plan.ttl:g} s)",
        f"longest time to take over with nothing else wrong: {report.longest_calm_takeover:.2f} s",
        *(f"logged error: {error}" for error in report.errors[:_SHOWN]),
        *(f"BROKEN: {what}" for what in report.broken[:_SHOWN]),
    ]
    if len(report.broken) > _SHOWN:
        lines.append(f"... and {len(report.broken) - _SHOWN} more")
    return "\n".join(lines)


def main() -> int:
    """Read the arguments, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long there are faults")
    parser.add_argument("--database", choices=KINDS, default="postgresql")
    parser.add_argument("--seed", type=int, help="of the faults; another one each time unless given")
    parser.add_argument("--sessions", type=int, default=300, help="so many are at work at once")
    parser.add_argument("--players", type=int, default=4, help="runner processes")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--step-seconds", type=float, default=1.0)
    parser.add_argument("--ttl", type=float, default=3.0)
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    given = parser.parse_args()
    plan = Plan(
        database=given.database,
        seed=given.seed if given.seed is not None else time.time_ns() % 1_000_000,
        seconds=given.minutes * 60,
        sessions=given.sessions,
        players=given.players,
        steps=given.steps,
        step_seconds=given.step_seconds,
        ttl=given.ttl,
        deadline=60.0 + 3 * given.steps * given.step_seconds,
        patience=2.0,
    )
    configure_logging("critical")  # what the harness's own connections go through is known
    directory = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    print(f"seed {plan.seed}, ledgers and logs in {directory}", file=sys.stderr)  # noqa: T201
    report = Run(plan, directory, progress=True).go()
    print(json.dumps(asdict(report)) if given.json else summary(report))  # noqa: T201
    if report.broken:
        return 1
    shutil.rmtree(directory)
    return 130 if report.interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
