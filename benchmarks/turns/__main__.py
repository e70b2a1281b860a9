"""Measure, and print turns a second: each store in the same server, by turns, so that noise disturbs all of them alike."""

import asyncio
import contextlib
import json
import platform
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.turns.floor import Floor
from benchmarks.turns.ours import Lifecycle, LifecycleStates
from benchmarks.turns.store import Store
from tests.servers import PostgresServer, find_postgres

REPORT = Path(__file__).parents[2] / "docs" / "turns.md"
# A slow store gets fewer turns a round, as its rate shows as well.
_ROUND_SECONDS = 1.0


@dataclass(slots=True)
class Entry:
    """A store and its rates: turns a second, one for each round."""

    store: Store
    share: int = 0
    done: int = 0
    rates: list[float] = field(default_factory=list)


def stores() -> list[Store]:
    """What can be measured here: the peers where their packages are installed."""
    found: list[Store] = [Floor(), Lifecycle(), LifecycleStates()]
    with contextlib.suppress(ImportError):
        from benchmarks.turns.peers import Adk, LangGraph, OpenAI

        found += [LangGraph(), OpenAI(), Adk()]
    return found


def main(
    callers: Annotated[
        int, typer.Option(min=1, help="tasks that save turns at once, each to a session of its own")
    ] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="rounds of about a second for each store")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    write: Annotated[bool, typer.Option("--write", help="write docs/turns.md")] = False,
) -> None:
    """Save turns of 1 KB with many callers at once, durably, and compare with the floor."""
    with PostgresServer(find_postgres(18)) as server:
        entries = asyncio.run(_measure(server, callers, rounds))
        version = server.version
    floor = entries[0].rates
    lines = [_line(entry, floor) for entry in entries]
    if as_json:
        json.dump({"callers": callers, "rounds": rounds, "stores": lines}, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    table = Table("store", "turns/s", "to the floor", "slowest and fastest round", title=f"{callers} callers")
    for line in lines:
        table.add_row(
            line["store"],
            f"{line['median']:,.0f}",
            f"{line['ratio']:.2f}",
            f"{line['least']:,.0f} - {line['most']:,.0f}",
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    if write:
        REPORT.write_text(_markdown(lines, callers, rounds, version))


def _line(entry: Entry, floor: list[float]) -> dict[str, Any]:
    ratios = [rate / base for rate, base in zip(entry.rates, floor, strict=True)]
    return {
        "store": entry.store.name, "median": statistics.median(entry.rates), "ratio": statistics.median(ratios),
        "least": min(entry.rates), "most": max(entry.rates),
    }  # fmt: skip


async def _measure(server: PostgresServer, callers: int, rounds: int) -> list[Entry]:
    entries = [Entry(store) for store in stores()]
    names = [f"session-{i:03}" for i in range(callers)]
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("turns", total=len(entries) * (rounds + 1))
        for number, entry in enumerate(entries):
            await entry.store.open(server.create_database(f"turns_{number}"))
            for name in names:
                await entry.store.create(name)
            # How many turns of each caller's fit into a round; they warm the store up, too.
            rate = await _round(entry, names, 4)
            entry.share = max(2, int(rate * _ROUND_SECONDS / callers))
            bar.advance(task)
        for _ in range(rounds):
            for entry in entries:
                entry.rates.append(await _round(entry, names, entry.share))
                bar.advance(task)
        for entry in entries:
            assert await entry.store.count(names[0]) == entry.done, f"{entry.store.name} lost turns"
            await entry.store.close()
    return entries


async def _round(entry: Entry, names: list[str], turns: int) -> float:
    async def caller(name: str) -> None:
        for number in range(entry.done, entry.done + turns):
            await entry.store.turn(name, number)

    began = time.perf_counter()
    await asyncio.gather(*(caller(name) for name in names))
    spent = time.perf_counter() - began
    entry.done += turns
    return len(names) * turns / spent


def _markdown(lines: list[dict[str, Any]], callers: int, rounds: int, version: str) -> str:
    rows = "\n".join(
        f"| {line['store']} | {line['median']:,.0f} | {line['ratio']:.2f} | {line['least']:,.0f} to {line['most']:,.0f} |"
        for line in lines
    )
    return f"""# Turns a second

Each of {callers} callers saves turns of 1 KB to a session of its own, and waits for each to be durable. All stores are on
one PostgreSQL {version}, `synchronous_commit` on, and take turns in rounds of about a second; the ratio is the median of
{rounds} rounds, each beside the floor's of the same time. `make turns` writes this page.

| store | turns/s | to the floor | slowest and fastest round |
|---|--:|--:|--:|
{rows}

Measured on {platform.machine()}, Python {platform.python_version()}. The floor is one hand-written statement for each commit
on sixteen raw connections. Lifecycle's writes carry the session's lease, check it, and are committed together (see
[architecture](architecture.md)); its rate with `save_state(append=...)` falls as conversations grow, as the whole is
written anew by each save.
"""


if __name__ == "__main__":
    typer.run(main)
