"""Measure, and write what was measured: `python -m benchmarks`."""

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import cache, dashboard, http, leases, postgresql, report, row_security, sqlite
from benchmarks.measure import Result
from lifecycle import migrate
from tests.servers import PostgresServer, ServerUnavailable, find_postgres

SETTINGS = ("postgresql", "sqlite", "cache", "leases", "dashboard", "row-security", "http")
LEASES, SECONDS = 10_000, 60
T = TypeVar("T")
Stage = Callable[[str, int], Callable[[], None]]
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
                versions["PostgreSQL"], hot = _measure_postgresql(turns, stage)
                results += hot
            except ServerUnavailable as reason:
                console.print(f"PostgreSQL left out: {reason}")
        if "cache" in chosen:
            try:
                cached = _measure_cache(turns, stage)
            except ServerUnavailable as reason:
                console.print(f"cache left out: {reason}")
        if "leases" in chosen:
            done = stage("leases", SECONDS)
            cost = _on_postgres("leases", console, lambda url: leases.measure(url, LEASES, SECONDS, done))
        sections = [one for name in chosen if name in _SECTIONS and (one := _SECTIONS[name](console, turns, stage))]
        if "sqlite" in chosen:
            results += _measure_sqlite(turns, stage)
    if as_json:
        measured = report.as_json(results, cost, cached) | {one.name: one.figures for one in sections}
        sys.stdout.write(json.dumps(measured, indent=2) + "\n")
    else:
        report.show(results, cost, cached)
        for section in sections:
            Console().print(*section.tables, sep="\n")
    if write:
        page = [report.markdown(results, versions, turns, cost, cached), *(one.markdown for one in sections)]
        REPORT.write_text("\n".join(page))


@dataclass(frozen=True)
class Section:
    """A part of the page with figures of its own kind."""

    name: str
    figures: Any
    tables: Sequence[Table]
    markdown: str


def _on_postgres(name: str, console: Console, measured: Callable[[str], T]) -> T | None:
    """What comes of measuring on a database of its own; None where there is no server."""
    try:
        with PostgresServer(find_postgres(18)) as server:
            url = server.create_database(name)
            migrate.upgrade(url)
            return measured(url)
    except ServerUnavailable as reason:
        console.print(f"{name} left out: {reason}")
        return None


def _measure_postgresql(turns: int, stage: Callable[[str], Callable[[], None]]) -> tuple[str, list[Result]]:
    """The server's version, and the hot calls on it."""
    with PostgresServer(find_postgres(18)) as server:
        url = server.create_database("benchmark")
        migrate.upgrade(url)
        results = postgresql.sync_results(url, turns, stage("PostgreSQL, sync"))
        results += asyncio.run(postgresql.async_results(url, turns, stage("PostgreSQL, async")))
        return server.version, results


def _measure_sqlite(turns: int, stage: Callable[[str], Callable[[], None]]) -> list[Result]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        results = sqlite.sync_results(path / "sync.db", turns, stage("SQLite, sync"))
        return results + asyncio.run(sqlite.async_results(path / "async.db", turns, stage("SQLite, async")))


def _dashboard(console: Console, _turns: int, stage: Stage) -> Section | None:
    done = stage("dashboard", dashboard.PAGES)
    found = _on_postgres("dashboard", console, lambda url: dashboard.measure(url, done))
    if found is None:
        return None
    return Section("dashboard", asdict(found), list(dashboard.tables(found)), dashboard.markdown(found))


def _http(console: Console, _turns: int, stage: Stage) -> Section | None:
    done = stage("http", http.STAGES)
    found = _on_postgres("http", console, lambda url: http.measure(url, done))
    if found is None:
        return None
    return Section("http", [asdict(one) for one in found], [http.table(found)], http.markdown(found))


def _row_security(console: Console, turns: int, stage: Stage) -> Section | None:
    done = stage("row security", row_security.STAGES)
    found = _on_postgres("secured", console, lambda url: row_security.measure(url, turns, done))
    if found is None:
        return None
    table = report.table(found, ("off (µs)", "on (µs)"))
    return Section("row_security", [asdict(one) for one in found], [table], row_security.markdown(found))


_SECTIONS: dict[str, Callable[[Console, int, Stage], Section | None]] = {
    "dashboard": _dashboard, "http": _http, "row-security": _row_security,
}  # fmt: skip


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
