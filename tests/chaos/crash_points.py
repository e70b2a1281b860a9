"""Named points around the commits of a runner at which its process kills itself: before, during and after each.

A point is `before SaveState`: the request's name, and whether it was yet to be sent, on its way, or committed with
nobody told. The process notes where it dies in a file that is only appended to.
"""

import json
import os
import random
import signal
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from lifecycle.drivers.mariadb import MariadbDriver
from lifecycle.drivers.postgresql import PostgresDriver
from lifecycle.drivers.sqlite import SqliteDriver

REQUESTS: Final = ("ClaimSessions", "SaveState", "AddMessages", "RenewLeases", "Move", "ReleaseLease", "BeatWorker")
MOMENTS: Final = ("before", "during", "after")
POINTS: Final = tuple(f"{moment} {request}" for request in REQUESTS for moment in MOMENTS)

_FILE: Final = "crashes"
_CALM: Final = "calm"
# A statement takes about as long.
_LONGEST: Final = 0.002


@dataclass(frozen=True, slots=True)
class Crash:
    """A process killed itself at a point, at a moment of the monotonic clock."""

    point: str
    pid: int
    at: float


def read_crashes(directory: Path) -> list[Crash]:
    """All crashes, in their order."""
    file = directory / _FILE
    return [Crash(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def set_calm(directory: Path, *, calm: bool) -> None:
    """Whether crashes are to wait."""
    (directory / _CALM).touch() if calm else (directory / _CALM).unlink(missing_ok=True)


def arm(point: str, occurrence: int, directory: Path) -> None:
    """Have this process die when it comes to a point for that time (or any later one, when crashes had to wait)."""
    moment, name = point.split()
    left = occurrence
    guard = threading.Lock()

    def comes(request: Any) -> bool:
        nonlocal left
        if type(request).__name__ != name:
            return False
        with guard:
            left -= 1
            return left <= 0 and not (directory / _CALM).exists()

    def die() -> None:
        line = json.dumps(asdict(Crash(point, os.getpid(), time.monotonic()))).encode() + b"\n"
        file = os.open(directory / _FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(file, line)
        os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(meet: Any) -> Any:
        def run(driver: Any, request: Any) -> Any:
            if not comes(request):
                return meet(driver, request)
            if moment == "before":
                die()
            if moment == "during":
                threading.Timer(random.uniform(0.0, _LONGEST), die).start()
            answer = meet(driver, request)
            if moment == "after":
                die()
            threading.Event().wait()  # it was faster than the timer
            return answer

        return run

    for driver in (PostgresDriver, SqliteDriver, MariadbDriver):
        driver._meet = wrapped(driver._meet)  # type: ignore[method-assign]
