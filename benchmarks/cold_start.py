"""How long it takes from the start of a process to its first durable save, with us and with our peers."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.bench import Bench, Section
from benchmarks.charts import Chart
from benchmarks.grid import Grid
from benchmarks.serving import ROOT
from benchmarks.stores import MISSING_PEERS, peers
from tests.servers import ServerUnavailable

# Some need seconds to be imported: so many rounds at the least, and no further one behind so many seconds.
_ROUNDS, _LEAST, _SECONDS = 7, 2, 50.0
_OURS: Final = (
    ("raw sqlite3", "sqlite3", "SQLite"),
    ("Lifecycle, SQLite", "lifecycle", "SQLite"),
    ("raw psycopg", "psycopg", "PostgreSQL"),
    ("Lifecycle, PostgreSQL", "lifecycle", "PostgreSQL"),
    ("Lifecycle, MariaDB", "lifecycle", "MariaDB"),
)
_PEERS: Final = (
    ("LangGraph SqliteSaver", "langgraph", "SQLite"),
    ("LangGraph PostgresSaver", "langgraph", "PostgreSQL"),
    ("OpenAI SQLiteSession", "openai", "SQLite"),
    ("OpenAI SQLAlchemySession", "openai", "PostgreSQL"),
    ("ADK DatabaseSessionService, SQLite", "adk", "SQLite"),
    ("ADK DatabaseSessionService, PostgreSQL", "adk", "PostgreSQL"),
)
_THEIRS: Final = frozenset(key for _, key, _ in _PEERS)

_HEAD: Final = """## Cold start

From the start of a fresh Python process to its first durable save: interpreter, imports, opening the store, a session, a
turn of 1 KB (`benchmarks/first_save.py`). The tables are there, and files have been read before. Medians of {rounds} rounds, in
each of which every store has its turn.
"""


@dataclass(slots=True)
class _Starter:
    name: str
    key: str
    url: str
    imported: list[float] = field(default_factory=list)
    saved: list[float] = field(default_factory=list)

    def set_up(self) -> None:
        """Run the process once, so that there are tables and compiled files."""
        self._run("setup")

    def start(self) -> None:
        """Run the process, and note its times in milliseconds."""
        began = time.monotonic()
        told = self._run()
        self.imported.append((told["imported"] - began) * 1000)
        self.saved.append((told["saved"] - began) * 1000)

    def _run(self, *more: str) -> dict[str, float]:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.first_save", self.key, self.url, *more],
            cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{self.name}: {done.stderr.strip()[-2000:]}")
        told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return told


def section(bench: Bench) -> Section:
    """Every store on the databases it has."""
    with ExitStack() as stack:
        starters: list[_Starter] = []
        left_out = []
        for name, key, database in (*_OURS, *(_PEERS if peers() else ())):
            try:
                starters.append(_Starter(name, key, _database(bench, stack, key, database, len(starters))))
            except ServerUnavailable as reason:
                left_out.append(f"{name} left out: {reason}.\n")
        if not peers():
            left_out.append(f"Without peers: {MISSING_PEERS}.\n")
        rounds = bench.pick(_ROUNDS, 1)
        progress = bench.stage("cold start", rounds * len(starters))
        # Whose tables are there already need not be tried out for the sake of a warm start.
        new = bench.pick(starters, [starter for starter in starters if starter.key in _THEIRS])
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(_Starter.set_up, new))
        until = bench.until(_SECONDS)
        for number in range(rounds):
            if number >= _LEAST and time.monotonic() > until:
                break
            for starter in starters:
                starter.start()
                progress()
    return _section(starters, left_out)


def _database(bench: Bench, stack: ExitStack, key: str, database: str, number: int) -> str:
    """A database of the store's own, with our tables for us and for the floor."""
    name = f"cold_{number}"
    if database == "PostgreSQL":
        return stack.enter_context(bench.postgresql(name, migrated=key not in _THEIRS))
    if database == "MariaDB":
        return stack.enter_context(bench.on_mariadb(name))
    if key in _THEIRS:
        return f"sqlite:///{bench.folder / name}.db"
    return stack.enter_context(bench.sqlite(name))


def _section(starters: Sequence[_Starter], left_out: Sequence[str]) -> Section:
    medians = [(one.name, statistics.median(one.imported), statistics.median(one.saved)) for one in starters]
    grid = Grid(
        ("store", "imported (ms)", "saved (ms)"),
        [(name, f"{imported:,.0f}", f"{saved:,.0f}") for name, imported, saved in medians],
    )
    figures: list[dict[str, Any]] = [
        {"store": name, "imported_ms": imported, "saved_ms": saved} for name, imported, saved in medians
    ]
    chart = Chart(
        "cold-start",
        "From the start of a process to its first save (less is better)",
        [name for name, _, _ in medians],
        {"saved": [saved for _, _, saved in medians]},
        "milliseconds",
    )
    head = _HEAD.format(rounds=len(starters[0].saved))
    text = "\n".join((head, *left_out, grid.markdown()))
    return Section(figures, [grid.rich()], text, charts=[chart])
