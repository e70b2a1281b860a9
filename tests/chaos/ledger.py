"""What players write down outside of the database: a file for each session, a line for each thing that happened.

A line is one write to a file that is only appended to, so lines of several processes stand in the order of the writes.
The clock is the machine's monotonic one, the same in every process.
"""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

What = Literal["claimed", "begun", "acknowledged", "refused", "unknown", "returned"]


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that a process did with a session under one epoch.

    `version` is the session's: as it was claimed, or as an acknowledged save left it.
    """

    what: What
    session_id: str
    epoch: int
    pid: int
    at: float
    step: int = 0
    version: int = 0


class Ledger:
    """The ledgers of all sessions, seen from one process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def note(self, what: What, session_id: str, epoch: int, *, step: int = 0, version: int = 0) -> None:
        """Append a line to the session's ledger."""
        line = Line(what, session_id, epoch, os.getpid(), time.monotonic(), step, version)
        file = os.open(self._directory / f"{session_id}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, json.dumps(asdict(line)).encode() + b"\n")
        finally:
            os.close(file)


def read_ledgers(directory: Path) -> dict[str, list[Line]]:
    """The lines of every session that has any, in their order."""
    return {
        file.stem: [Line(**json.loads(line)) for line in file.read_text().splitlines()]
        for file in sorted(directory.glob("*.jsonl"))
    }
