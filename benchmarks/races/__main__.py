"""Race the stores, and print who let a stale write in: `python -m benchmarks.races`."""

import contextlib
import json
import platform
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks.races import page, report, scenarios
from benchmarks.races.actors import Actor, RaceFailed
from benchmarks.races.entrants import ENTRANTS, KEYS, Entrant
from tests.servers import PostgresServer, ServerFailed, ServerUnavailable, find_postgres

REPORT = Path(__file__).parents[2] / "docs" / "races.md"

# Who may write is decided by locks and versions, which syncing the disk has no part in.
_SERVER = {"fsync": "off", "full_page_writes": "off"}
_INTERRUPTED = 130
_PIPE_WIDTH = 200  # a pipe has none of its own


def main(
    rounds: Annotated[int, typer.Option(min=1, help="rounds of each race, each on a session of its own")] = 1000,
    seed: Annotated[int, typer.Option(help="deals who goes first, and how far ahead a successor gets")] = 1,
    only: Annotated[str | None, typer.Option(help=f"race one of {', '.join(KEYS)}")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    write: Annotated[bool, typer.Option("--write", help="write docs/races.md; takes all stores")] = False,
) -> None:
    """Race each store three ways, and count the stale writes it accepted.

    Exits with 1 when a guarded use of Lifecycle accepted one, or a race failed.
    """
    if only is not None and only not in KEYS:
        raise typer.BadParameter(f"must be one of {', '.join(KEYS)}, not {only!r}", param_hint="--only")
    if write and only is not None:
        raise typer.BadParameter("takes all stores: leave --only out", param_hint="--write")
    chosen = [entrant for entrant in ENTRANTS if only in (None, entrant.key)]
    results = report.Results(rounds, seed, {"Python": platform.python_version()})
    for entrant in chosen:
        if reason := entrant.missing():
            results.missing.append((entrant, reason))
            if write:
                raise typer.BadParameter(f"takes all stores, but {reason}", param_hint="--write")
    absent = [entrant for entrant, _ in results.missing]
    try:
        _race([entrant for entrant in chosen if entrant not in absent], results)
    except (RaceFailed, ServerFailed, ServerUnavailable) as error:
        _say(f"error: {error}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        _say(f"stopped by Ctrl-C after {len(results.ran)} races; what follows is what they gave, nothing was written")
        _show(results, as_json=as_json)
        raise typer.Exit(_INTERRUPTED) from None
    _show(results, as_json=as_json)
    if write:
        REPORT.write_text(page.markdown(results))
    for entrant, tally in results.broken:
        _say(f"error: {entrant.name} accepted {tally.stale:,} stale writes in the race {tally.race!r}")
    if results.broken:
        raise typer.Exit(1)


def _race(entrants: list[Entrant], results: report.Results) -> None:
    """Run all races of all entrants on one server, each entrant in a database of its own."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with contextlib.ExitStack() as stage:
        server = stage.enter_context(PostgresServer(find_postgres(18), settings=_SERVER))
        results.versions["PostgreSQL"] = server.version
        cast = scenarios.Cast(*(stage.enter_context(Actor()) for _ in range(3)))
        bar = stage.enter_context(Progress(*columns, console=console, transient=True, disable=not console.is_terminal))
        for number, entrant in enumerate(entrants):
            results.versions |= entrant.versions()
            try:
                scenarios.enter(cast, entrant, server.create_database(f"races_{number}"))
                for race in scenarios.RACES:
                    advance = _stage(bar, f"{entrant.name}: {race}", results.rounds)
                    # The same deal for every store.
                    dice = random.Random(f"{results.seed} {race}")
                    results.ran.append((entrant, scenarios.run(race, cast, results.rounds, dice, advance)))
            except RaceFailed as error:
                raise RaceFailed(f"{entrant.name}: {error}") from None


def _stage(bar: Progress, name: str, total: int) -> Callable[[int], None]:
    task = bar.add_task(name, total=total)
    return lambda done: bar.advance(task, done)


def _show(results: report.Results, *, as_json: bool) -> None:
    if as_json:
        json.dump(report.as_json(results), sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPE_WIDTH)
    for table in report.tables(results):
        console.print(table)
    ran_on = report.versions_line(results.versions)
    console.print(f"{results.rounds:,} rounds of each race, seed {results.seed}; {ran_on}", soft_wrap=True)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    typer.run(main)
