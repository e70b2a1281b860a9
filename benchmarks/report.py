"""What was measured, as a table on the terminal, as JSON, and as the page in the documentation."""

import os
import platform
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from benchmarks.leases import LeaseCost
from benchmarks.measure import Result

_HEAD = """# Benchmarks

`make bench` takes these figures anew and writes this page. Each call is timed {turns} times, by turns with its floor
in one run: the ratio holds on a noisy machine, the microseconds are those of this one.

- **The floor on PostgreSQL** is one hand-written statement on a raw psycopg connection, prepared, with autocommit. It
  writes the same columns, rows and deadlines and returns the same (`benchmarks/floor_postgresql.py`).
- **The floor on SQLite** are the two or three statements it takes on a raw `sqlite3` connection, with the same pragmas
  (`benchmarks/floor_sqlite.py`).
- Commits are durable on both sides: `synchronous_commit=on`, `fsync=on`; WAL with `synchronous=FULL`.
- What is read is decoded on both sides (JSON), and what is saved is encoded (900 bytes of context).
- Async calls are awaited one after the other. On SQLite their floor is the blocking call.
"""


def table(results: Sequence[Result]) -> Table:
    """Medians in microseconds and their ratio."""
    shown = Table("setting", "operation", "floor (µs)", "lifecycle (µs)", "ratio")
    for column in shown.columns[2:]:
        column.justify = "right"
    last = ""
    for result in results:
        shown.add_row(
            result.setting if result.setting != last else "",
            result.name,
            f"{result.floor_us:,.0f}",
            f"{result.ours_us:,.0f}",
            f"{result.ratio:.2f}",
        )
        last = result.setting
    return shown


def lease_line(cost: LeaseCost) -> str:
    """What keeping leases alive takes, in one sentence."""
    return (
        f"{cost.leases:,} leases with a beat every {cost.heartbeat:g} s, watched for {cost.seconds:.0f} s once settled: {cost.beats}"
        f" statements, {cost.cpu_share:.1%} of one core, {cost.updates:,} row updates of which"
        f" {cost.heap_only_share:.1%} heap-only, {cost.dead:,} dead rows in the end."
    )


def as_json(results: Sequence[Result], cost: LeaseCost | None) -> dict[str, Any]:
    """The same for programs."""
    operations = [
        {
            "setting": result.setting,
            "operation": result.name,
            "floor_us": round(result.floor_us, 1),
            "lifecycle_us": round(result.ours_us, 1),
            "ratio": round(result.ratio, 3),
            "turns": result.turns,
        }
        for result in results
    ]
    kept = None if cost is None else {**asdict(cost), "heap_only_share": round(cost.heap_only_share, 4)}
    return {"operations": operations, "leases": kept}


def markdown(results: Sequence[Result], versions: Mapping[str, str], turns: int, cost: LeaseCost | None) -> str:
    """The page."""
    lines = [_HEAD.format(turns=f"{turns:,}")]
    named = {"Python": platform.python_version(), "SQLite": sqlite3.sqlite_version, **versions}
    lines.append(
        f"Taken on {datetime.now(UTC):%d %B %Y}, {os.cpu_count()} cores, "
        + ", ".join(f"{name} {version}" for name, version in named.items())
        + ".\n"
    )
    for setting in dict.fromkeys(result.setting for result in results):
        lines += [f"## {setting}\n", "| operation | floor (µs) | lifecycle (µs) | ratio |", "|---|---:|---:|---:|"]
        lines += [
            f"| {result.name} | {result.floor_us:,.0f} | {result.ours_us:,.0f} | {result.ratio:.2f} |"
            for result in results
            if result.setting == setting
        ]
        lines.append("")
    if cost is not None:
        lines += ["## Leases\n", lease_line(cost), ""]
    return "\n".join(lines).rstrip() + "\n"
