"""The memory of a process that keeps many sessions open, with us and with our peers."""

import json
import os
import subprocess
import sys
from typing import Any, Final

import psycopg

from benchmarks.bench import Bench, Section
from benchmarks.grid import Grid
from benchmarks.leases import WAITING
from benchmarks.serving import ROOT
from benchmarks.stores import MISSING_PEERS, peers

_OPEN: Final = 10_000
# Theirs take their time to open; what one takes is reckoned up.
_PEERS_OPEN: Final = 2_000
_OURS: Final = (("Lifecycle, leases kept alive", "leases", _OPEN), ("Lifecycle, Session objects", "sessions", _OPEN))
_PEERS: Final = (
    ("LangGraph, checkpoints to go on from", "langgraph", _PEERS_OPEN),
    ("OpenAI SQLAlchemySession objects", "openai", _PEERS_OPEN),
    ("ADK Session objects", "adk", _PEERS_OPEN),
)

_HEAD: Final = """## Memory

What a process with {open:,} open sessions holds in memory beyond one with a single one (`benchmarks/held.py`): the objects that
each store gives for one that is worked on, without any content. Nothing of ours has to be kept but the id; a lease is what a
process keeps alive. Of the peers' {peers:,} are opened, and what one takes is multiplied.
"""


def section(bench: Bench) -> Section:
    """Each in a process of its own, on PostgreSQL."""
    found: list[tuple[str, dict[str, Any]]] = []
    chosen = (*_OURS, *(_PEERS if peers() else ()))
    progress = bench.stage("memory", len(chosen))
    for number, (name, key, wanted) in enumerate(chosen):
        count = bench.pick(wanted, 20)
        with bench.postgresql(f"held_{number}", migrated=(name, key, wanted) in _OURS) as url:
            if key == "leases":
                with psycopg.connect(url, autocommit=True) as raw:
                    raw.execute(WAITING, {"n": count + 1, "kind": "held"})
            found.append((name, _measured(key, url, count)))
        progress()
    grid = Grid(
        ("store", "one (bytes)", f"{_OPEN:,} (MB)", "the process with one (MB)"),
        [
            (name, f"{one['each']:,.0f}", f"{one['each'] * _OPEN / 1e6:,.1f}", f"{one['before'] / 1e6:,.0f}")
            for name, one in found
        ],
    )
    text = _HEAD.format(open=_OPEN, peers=_PEERS_OPEN)
    if not peers():
        text += f"\nWithout peers: {MISSING_PEERS}.\n"
    return Section(dict(found), [grid.rich()], f"{text}\n{grid.markdown()}")


def _measured(key: str, url: str, count: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.held", key, url, str(count)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{key}: {done.stderr.strip()[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told
