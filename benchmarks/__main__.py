"""Measure, and write what was measured: `python -m benchmarks`."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import (
    asks,
    cache,
    cold_start,
    dashboard,
    hot,
    http,
    leases,
    lists,
    machine,
    many,
    memory,
    page,
    row_security,
    storage,
    sweeps,
    turns,
    upkeep,
)
from benchmarks.bench import SETTINGS, Bench, Section
from benchmarks.stores import MISSING_PEERS, peers
from tests.servers import ServerUnavailable

# Every section: what measures it. One line more, and it is in the run, on the page, in the JSON and in the smoke test:
# a function that takes a `Bench` (servers, databases, how often and how long to measure; see bench.py) and gives a
# `Section` (bench.py). It raises `ServerUnavailable` where it cannot be measured. What it is asked for stands in asks.py.
_SECTIONS: Final[Mapping[str, Callable[[Bench], Section]]] = {
    "turns": turns.section,
    "operations": hot.section,
    "storage": storage.section,
    "cold-start": cold_start.section,
    "memory": memory.section,
    "leases": leases.section,
    "cache": cache.section,
    "row-security": row_security.section,
    "http": http.section,
    "sweeps": sweeps.section,
    "upkeep": upkeep.section,
    "many": many.section,
    "lists": lists.section,
    "dashboard": dashboard.section,
}
NAMES: Final = tuple(_SECTIONS)
DOCS: Final = Path(__file__).parents[1] / "docs"
_PAGE: Final = "benchmarks.md"
_INTERRUPTED: Final = 130
_PIPE_WIDTH: Final = 200  # a pipe has none of its own
_QUICK_TURNS: Final = 5


@dataclass(slots=True)
class _Run:
    """What came of a run."""

    sections: dict[str, Section] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    machine: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    interrupted: bool = False


app: Final = typer.Typer(add_completion=False)


@app.command()
def main(
    only: Annotated[
        list[str] | None, typer.Option(help=f"measure this section, and no other that is not named: {', '.join(NAMES)}")
    ] = None,
    number: Annotated[int, typer.Option("--turns", min=5, help="how often each call is timed at most")] = 1000,
    quick: Annotated[
        bool, typer.Option("--quick", help="try everything out in little time; the figures mean nothing")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    write: Annotated[bool, typer.Option("--write", help=f"write docs/{_PAGE} and its charts")] = False,
    into: Annotated[
        Path | None, typer.Option(help="write the page into this directory instead, of whatever was measured")
    ] = None,
) -> None:
    """Measure us, the floor and our peers, by turns on the same servers, and print medians and ratios.

    Exits with 1 when a section failed, with 130 after Ctrl-C; what was measured by then is printed all the same.
    """
    chosen = _chosen(only)
    if write and (quick or chosen != list(NAMES)):
        raise typer.BadParameter("takes a whole run: name a directory with --into instead", param_hint="--write")
    if into is not None and not into.is_dir():
        raise typer.BadParameter(f"{into} is not a directory", param_hint="--into")
    console = Console(stderr=True)
    if not peers():
        console.print(f"without peers: {MISSING_PEERS}", highlight=False)
    run = _Run()
    _measure(run, chosen, console, _QUICK_TURNS if quick else number, quick=quick)
    _show(run, as_json=as_json)
    folder = into or (DOCS if write and not run.interrupted and not run.failed else None)
    if folder is not None:
        page.write(
            folder / _PAGE, list(run.sections.values()), run.machine,
            seconds=run.seconds, left_out=run.left_out, names=NAMES,
        )  # fmt: skip
    if run.interrupted:
        console.print("stopped by Ctrl-C: above is what was measured by then", highlight=False)
        raise typer.Exit(_INTERRUPTED)
    if run.failed:
        raise typer.Exit(1)


def _chosen(only: Sequence[str] | None) -> list[str]:
    """The sections to measure, in the order of the page."""
    for name in only or ():
        if name not in NAMES:
            raise typer.BadParameter(f"must be one of {', '.join(NAMES)}, not {name!r}", param_hint="--only")
    return [name for name in NAMES if not only or name in only]


def _measure(run: _Run, chosen: Sequence[str], console: Console, turns: int, *, quick: bool) -> None:
    """Measure section after section. One that fails is told of, and the next one goes on."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(Progress(*columns, console=console, transient=True, disable=not console.is_terminal))

        def stage(name: str, total: int) -> Callable[[], None]:
            task = bar.add_task(name, total=total)
            return lambda: bar.advance(task)

        bench = Bench(stack, stage, turns=turns, quick=quick)
        load = machine.load()
        try:
            for place, name in enumerate(chosen, 1):
                began = time.monotonic()
                _add(run, name, bench, console)
                run.seconds[name] = time.monotonic() - began
                for task in bar.task_ids:
                    bar.remove_task(task)
                console.print(f"{place} of {len(chosen)}: {name}, {run.seconds[name]:.0f} s", highlight=False)
        except KeyboardInterrupt:
            run.interrupted = True
        run.machine = machine.describe(bench.folder, bench.versions, syncs=20 if quick else 200)
        run.machine["settings"] = SETTINGS
        run.machine["load"] = f"{load:.1f} processes at work in the minute before"


def _add(run: _Run, name: str, bench: Bench, console: Console) -> None:
    try:
        run.sections[name] = _SECTIONS[name](bench)
    except ServerUnavailable as reason:
        run.left_out[name] = str(reason)
        console.print(f"{name} left out: {reason}", highlight=False)
    except Exception as error:  # noqa: BLE001 - a quarter of an hour's figures are not lost for one section
        run.left_out[name] = f"it failed: {type(error).__name__}"
        run.failed.append(name)
        console.print_exception()


def _show(run: _Run, *, as_json: bool) -> None:
    measured = {name: value for section in run.sections.values() for name, value in section.asked.items()}
    if as_json:
        told: dict[str, Any] = {
            "machine": run.machine,
            "seconds": run.seconds,
            "left_out": run.left_out,
            "asked": {
                name: {"what": ask.what, "bound": ask.asked(), "measured": measured.get(name)}
                | {"holds": ask.holds(measured[name]) if name in measured else None}
                for name, ask in asks.ASKS.items()
            },
            "sections": {name: section.figures for name, section in run.sections.items()},
        }
        json.dump(told, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPE_WIDTH)
    for section in run.sections.values():
        for table in section.tables:
            console.print(table)
    console.print(asks.table(measured).rich())
    for name, text in run.machine.items():
        console.print(f"{name}: {text}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    app()
