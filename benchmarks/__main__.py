"""Measure, and write what was measured: `python -m benchmarks`."""

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks import cache, leases, postgresql, report, sqlite
from benchmarks.measure import Result
from lifecycle import migrate
from tests.servers import PostgresServer, ServerUnavailable, find_postgres

SETTINGS = ("postgresql", "sqlite", "cache", "leases")
LEASES, SECONDS = 10_000, 60
REPORT = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def main(
    only: Annotated[str | None, typer.Option(help=f"measure one of {', '.join(SETTINGS)}")] = None,
    turns: Annotated[int, typer.Option(min=20, help="how often each call is timed")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    write: Annotated[bool, typer.Option("--write", help="write docs/benchmarks.md")] = False,
) -> None:
    """Time each hot operation beside its floor, by turns, and print medians and ratios."""
    if only is not None and only not in SETTINGS:
        raise typer.BadParameter(f"must be one of {', '.join(SETTINGS)}, not {only!r}", param_hint="--only")
    chosen = SETTINGS if only is None else (only,)
    console = Console(stderr=True)
    results: list[Result] = []
    versions: dict[str, str] = {}
    cost: leases.LeaseCost | None = None
    cached: cache.Cached | None = None
    with Progress(console=console, transient=True) as bar:

        def stage(name: str, total: int = turns + max(20, turns // 10)) -> Callable[[], None]:
            task = bar.add_task(name, total=total)
            return lambda: bar.advance(task)

        if "postgresql" in chosen:
            try:
                with PostgresServer(find_postgres(18)) as server:
                    url = server.create_database("benchmark")
                    migrate.upgrade(url)
                    versions["PostgreSQL"] = server.version
                    results += postgresql.sync_results(url, turns, stage("PostgreSQL, sync"))
                    results += asyncio.run(postgresql.async_results(url, turns, stage("PostgreSQL, async")))
            except ServerUnavailable as reason:
                console.print(f"PostgreSQL left out: {reason}")
        if "cache" in chosen:
            try:
                cached = _measure_cache(turns, stage)
            except ServerUnavailable as reason:
                console.print(f"cache left out: {reason}")
        if "leases" in chosen:
            try:
                with PostgresServer(find_postgres(18)) as server:
                    url = server.create_database("leases")
                    migrate.upgrade(url)
                    cost = leases.measure(url, LEASES, SECONDS, stage("leases", SECONDS))
            except ServerUnavailable as reason:
                console.print(f"leases left out: {reason}")
        if "sqlite" in chosen:
            with tempfile.TemporaryDirectory() as directory:
                path = Path(directory)
                results += sqlite.sync_results(path / "sync.db", turns, stage("SQLite, sync"))
                results += asyncio.run(sqlite.async_results(path / "async.db", turns, stage("SQLite, async")))
    if as_json:
        json.dump(report.as_json(results, cost, cached), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        report.show(results, cost, cached)
    if write:
        REPORT.write_text(report.markdown(results, versions, turns, cost, cached))


def _measure_cache(turns: int, stage: Callable[[str, int], Callable[[], None]]) -> cache.Cached:
    with PostgresServer(find_postgres(18)) as server:
        url = server.create_database("cached")
        migrate.upgrade(url)
        measured = cache.measure("PostgreSQL", url, turns, stage)
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{directory}/cached.db"
        migrate.upgrade(url)
        return measured + cache.measure("SQLite", url, turns, stage)


if __name__ == "__main__":
    typer.run(main)
