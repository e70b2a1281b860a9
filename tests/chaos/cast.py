"""The players' processes: started, stopped, and killed in any way."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.chaos.crash_points import read_crashes, set_calm
from tests.chaos.ledger import read_ledgers
from tests.chaos.player import NO_DATABASE

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Kill:
    """A process was killed at a moment of the monotonic clock.

    `calm` says that nothing else was wrong: there was a database, and the others had room for what the dead one held.
    """

    pid: int
    at: float
    calm: bool


class Cast:
    """One process for each URL, or none while it is dead. Start them from the main thread, with which they die."""

    def __init__(
        self, urls: Sequence[str], ledgers: Path, logs: Path, options: Sequence[str], *, first: int | None = None
    ) -> None:
        self.urls = list(urls)
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * len(self.urls)
        self.kills: list[Kill] = []
        # Processes that ended by themselves, and were not told to.
        self.deserted: list[str] = []
        self.turned_away = 0
        # Those that killed themselves at a point that has a name, with how often each.
        self.crashes: Counter[str] = Counter()
        self._ledgers = ledgers
        self._logs = logs
        self._options = list(options)
        self._first = len(self.urls) if first is None else first
        self._started = 0
        # Which of those that were started each slot's process is.
        self._numbers = [0] * len(self.urls)

    def __enter__(self) -> Self:
        """Start the first ones, all of them unless told otherwise."""
        for slot in range(self._first):
            self.start(slot)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave none alive."""
        for process in self.processes:
            if process is not None:
                process.kill()
                process.wait()

    def start(self, slot: int) -> None:
        """Start a slot's process."""
        self._started += 1
        self._numbers[slot] = self._started
        command = [sys.executable, "-m", "tests.chaos.player", self.urls[slot], str(self._ledgers), *self._options]
        with self._log(self._started).open("wb") as log:
            self.processes[slot] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is for the harness
            )

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait for something that the processes do. Raises TimeoutError, with what they logged."""
        deadline = time.monotonic() + PATIENCE
        while not reached():
            if time.monotonic() > deadline:
                message = f"it did not come; the processes logged {self.errors()}"
                raise TimeoutError(message)
            time.sleep(0.02)

    def up(self) -> bool:
        """Whether all that were started have begun to work."""
        return all(
            "runner_started" in self._log(self._numbers[slot]).read_text(errors="replace")
            for slot, process in enumerate(self.processes)
            if process is not None
        )

    def busiest(self) -> int:
        """The slot whose process works on the most sessions."""
        last = [lines[-1] for lines in read_ledgers(self._ledgers).values() if lines]
        held = Counter(line.pid for line in last if line.what != "returned")
        alive = [(held[process.pid], slot) for slot, process in enumerate(self.processes) if process is not None]
        return max(alive)[1]

    def alive(self, slot: int) -> bool:
        """Whether the slot has a process; one that ended by itself is noted and forgotten."""
        process = self.processes[slot]
        if process is None:
            return False
        status = process.poll()
        if status is None:
            return True
        self.processes[slot] = None
        crash = next((crash for crash in read_crashes(self._ledgers) if crash.pid == process.pid), None)
        if crash is not None and status == -signal.SIGKILL:
            self.crashes[crash.point] += 1
            self.kills.append(Kill(crash.pid, crash.at, calm=False))
        elif status == NO_DATABASE:
            self.turned_away += 1
        else:
            self.deserted.append(f"process {process.pid} ended by itself, with status {status}")
        return False

    def kill(self, slot: int, *, calm: bool = False) -> None:
        """Kill a slot's process with SIGKILL."""
        process = self._of(slot)
        self.kills.append(Kill(process.pid, time.monotonic(), calm))
        process.kill()
        process.wait()
        self.processes[slot] = None

    def freeze(self, slot: int) -> None:
        """Stop a slot's process where it is."""
        self._of(slot).send_signal(signal.SIGSTOP)

    def thaw(self, slot: int) -> None:
        """Let it go on."""
        self._of(slot).send_signal(signal.SIGCONT)

    def dismiss(self) -> list[str]:
        """Have all end in good order; those that did not."""
        left = [process for process in self.processes if process is not None]
        for process in left:
            process.terminate()
        bad = []
        for process in left:
            try:
                status = process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
            if status != 0:
                bad.append(f"process {process.pid} ended with status {status} when it was told to stop")
        self.processes = [None] * len(self.urls)
        return bad

    def set_calm(self, *, calm: bool) -> None:
        """Whether those that are to kill themselves wait with it."""
        set_calm(self._ledgers, calm=calm)

    def events(self) -> Counter[str]:
        """How often the processes logged each event."""
        return Counter(str(event.get("event")) for event in self._events())

    def errors(self) -> list[str]:
        """What was logged as an error, each kind once."""
        found = {
            f"{event.get('event')}: {_what(event)}"
            for event in self._events()
            if event.get("level") in {"error", "critical"} and _what(event) != "Stumble: "
        }
        return sorted(found)

    def _events(self) -> list[dict[str, Any]]:
        events = []
        for number in range(1, self._started + 1):
            for line in self._log(number).read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError):  # a killed process may leave half a line
                    event = json.loads(line)
                    if isinstance(event, dict):
                        events.append(event)
        return events

    def _log(self, number: int) -> Path:
        return self._logs / f"player-{number:04}.log"

    def _of(self, slot: int) -> subprocess.Popen[bytes]:
        process = self.processes[slot]
        if process is None:
            message = f"slot {slot} has no process"
            raise RuntimeError(message)
        return process


def _what(event: dict[str, Any]) -> str:
    """The exception's type and text."""
    raised = event.get("exception")
    if isinstance(raised, list) and raised:
        return f"{raised[0].get('exc_type')}: {str(raised[0].get('exc_value'))[:200]}"
    return str(event.get("error", ""))[:200]
