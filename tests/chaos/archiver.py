"""A process that prunes into an archive and kills itself at a named point: `python -m tests.chaos.archiver URL DIR ...`.

It notes each batch whose removal was acknowledged in a file that is only appended to.
"""

import argparse
import functools
import json
import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from lifecycle import ALL, SessionManager, Settings
from lifecycle.archive.batch import Batch
from lifecycle.archive.store import Archive
from lifecycle.drivers.dbapi import DbapiDriver
from lifecycle.drivers.postgresql import PostgresDriver
from lifecycle.operations.requests import SweepBatch
from lifecycle.transfer import files

# Before and after each step: the file is begun, a session written, put on the disk, named; the rows are removed and
# committed. `random` is at any time.
POINTS: Final = (
    "before begin", "after begin", "before end", "after end", "before commit", "before sync", "after sync",
    "before replace", "after replace", "before sync_directory", "after sync_directory", "after commit",
    "after SweepBatch", "random",
)  # fmt: skip
_LONGEST: Final = 0.3


def die() -> None:
    """End without a chance to clean up."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str, occurrence: int) -> None:
    """Have this process die when it comes to a point for that time."""
    moment, _, name = point.partition(" ")
    left = occurrence

    def wrapped(step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if name == "SweepBatch" and not isinstance(args[1], SweepBatch):
                return step(*args, **kwargs)
            left -= 1
            if moment == "before" and left <= 0:
                die()
            answer = step(*args, **kwargs)
            if left <= 0:
                die()
            return answer

        return run

    if point == "random":
        threading.Timer(random.uniform(0.0, _LONGEST), die).start()
        return
    owners: dict[str, list[Any]] = {
        "begin": [Archive], "end": [Batch], "commit": [Batch], "sync": [files], "sync_directory": [files],
        "replace": [Path], "SweepBatch": [PostgresDriver, DbapiDriver],
    }  # fmt: skip
    for owner in owners[name]:
        attribute = "_meet" if name == "SweepBatch" else name
        setattr(owner, attribute, wrapped(getattr(owner, attribute)))


def main() -> None:
    """Prune until nothing is due."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("directory", type=Path)
    parser.add_argument("ledger", type=Path)
    parser.add_argument("--crash")
    parser.add_argument("--occurrence", type=int, default=1)
    parser.add_argument("--compression", default="none")
    given = parser.parse_args()
    settings = Settings(
        database={"url": given.url}, archive={"directory": str(given.directory), "compression": given.compression}
    )
    ledger = os.open(given.ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    with SessionManager.open(settings, tenant=ALL) as manager:
        manager.get_stats()
        if given.crash:
            arm(given.crash, given.occurrence)
        while True:
            report = manager.prune_sessions(batch=7, budget=0.0)
            os.write(ledger, json.dumps(report.session_ids).encode() + b"\n")
            if report.complete:
                return


if __name__ == "__main__":
    main()
