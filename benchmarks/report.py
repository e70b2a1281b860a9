"""What was measured, as a table on the terminal, as JSON, and as the page in the documentation."""

import os
import platform
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.cache import AT_ONCE, SECONDS, Cached, Longest
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


_CACHE = """## Cache

Each read through a cache beside the same read without one (`benchmarks/cache.py`), with a Valkey server on a unix
socket of the same machine: what the network to a database or a cache takes is not in it. The state of 100 KB is a
conversation of 420 entries, and reading its JSON is most of the time. A save with the load after it is what a cache
makes dearer: it is dropped and filled again.
"""
_FAILING = """While {at_once} threads (async: tasks) read for {seconds:.0f} s, this happens to the server for {most:.0f} s of them. Of all
calls: how many the cache answered, how many passed it over, and how many found it failing; the most time that one spent
waiting for the cache, all its questions together (its timeout is 50 ms); and what the calls took.
"""


def show(results: Sequence[Result], cost: LeaseCost | None, cached: Cached | None) -> None:
    """Print what was measured."""
    console = Console()
    if results:
        console.print(table(results))
    if cached is not None:
        console.print(table(cached.results, ("no cache (µs)", "cache (µs)")))
        console.print(watched_table(cached.watched))
    if cost is not None:
        console.print(lease_line(cost))


def table(results: Sequence[Result], columns: tuple[str, str] = ("floor (µs)", "lifecycle (µs)")) -> Table:
    """Medians in microseconds and their ratio."""
    shown = Table("setting", "operation", *columns, "ratio")
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


def watched_table(watched: Sequence[Longest]) -> Table:
    """Reads while the cache fails."""
    shown = Table("setting", "cache", *_WATCHED)
    for column in shown.columns[2:]:
        column.justify = "right"
    for one in watched:
        shown.add_row(one.setting, one.happening, *_figures(one))
    return shown


_WATCHED = (
    "calls",
    "hits",
    "passed over",
    "failures",
    "cost at most (ms)",
    "median (µs)",
    "1 in 1,000 (ms)",
    "longest (ms)",
)


def _figures(one: Longest) -> list[str]:
    counts = [f"{count:,}" for count in (one.calls, one.hits, one.passed, one.failures)]
    return [
        *counts,
        f"{one.cost_ms:.1f}",
        f"{one.median_us:,.0f}",
        f"{one.thousandth_us / 1000:.1f}",
        f"{one.longest_us / 1000:.1f}",
    ]


def cache_markdown(cached: Cached) -> list[str]:
    """The section on the cache."""
    lines = [_CACHE, "| setting | operation | no cache (µs) | cache (µs) | ratio |", "|---|---|---:|---:|---:|"]
    lines += [
        f"| {result.setting} | {result.name} | {result.floor_us:,.0f} | {result.ours_us:,.0f} | {result.ratio:.2f} |"
        for result in cached.results
    ]
    lines += ["", _FAILING.format(at_once=AT_ONCE, seconds=SECONDS * 5 / 3, most=SECONDS)]
    lines += [f"| setting | cache | {' | '.join(_WATCHED)} |", "|---|---|" + "---:|" * len(_WATCHED)]
    lines += [f"| {one.setting} | {one.happening} | {' | '.join(_figures(one))} |" for one in cached.watched]
    return [*lines, ""]


def lease_line(cost: LeaseCost) -> str:
    """What keeping leases alive takes, in one sentence."""
    return (
        f"{cost.leases:,} leases with a beat every {cost.heartbeat:g} s, watched for {cost.seconds:.0f} s once settled: {cost.beats}"
        f" statements, {cost.cpu_share:.1%} of one core, {cost.updates:,} row updates of which"
        f" {cost.heap_only_share:.1%} heap-only, {cost.dead:,} dead rows in the end."
    )


def as_json(results: Sequence[Result], cost: LeaseCost | None, cached: Cached | None) -> dict[str, Any]:
    """The same for programs."""
    operations = [_result(result) for result in results]
    through = None
    if cached is not None:
        through = {
            "operations": [_result(result) for result in cached.results],
            "failing": [asdict(one) for one in cached.watched],
        }
    kept = None if cost is None else {**asdict(cost), "heap_only_share": round(cost.heap_only_share, 4)}
    return {"operations": operations, "leases": kept, "cache": through}


def _result(result: Result) -> dict[str, Any]:
    return {
        "setting": result.setting,
        "operation": result.name,
        "floor_us": round(result.floor_us, 1),
        "lifecycle_us": round(result.ours_us, 1),
        "ratio": round(result.ratio, 3),
        "turns": result.turns,
    }


def markdown(
    results: Sequence[Result], versions: Mapping[str, str], turns: int, cost: LeaseCost | None, cached: Cached | None
) -> str:
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
    if cached is not None:
        lines += cache_markdown(cached)
    if cost is not None:
        lines += ["## Leases\n", lease_line(cost), ""]
    return "\n".join(lines).rstrip() + "\n"
