"""The hot operations, on every database and with both managers, each beside its floor."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from benchmarks import dbapi, floor_mariadb, floor_sqlite, postgresql
from benchmarks.bench import Bench, Section
from benchmarks.charts import Chart
from benchmarks.grid import Grid
from benchmarks.measure import Progress, Result, warming
from benchmarks.ours import MESSAGE_TURN, STATE_TURN
from benchmarks.placing import apart
from tests.servers import ServerUnavailable

# So long at the most each setting is measured.
_SECONDS: Final = {"PostgreSQL": 20.0, "SQLite": 8.0, "MariaDB": 12.0}

_HEAD: Final = """## Operations

Each call beside its floor, {turns} times by turns where there was time: the ratio holds on a noisy machine.

- **The floor on PostgreSQL** is one hand-written statement on a raw psycopg connection, prepared, with autocommit. It
  writes the same columns, rows and deadlines and returns the same (`benchmarks/floor_postgresql.py`).
- **The floor on SQLite** are the two or three statements it takes on a raw `sqlite3` connection, with the same pragmas
  (`benchmarks/floor_sqlite.py`), **on MariaDB** those it takes on a raw PyMySQL connection
  (`benchmarks/floor_mariadb.py`).
- Commits are durable on both sides: `synchronous_commit=on`, `fsync=on`; WAL with `synchronous=FULL`;
  `innodb_flush_log_at_trx_commit=1`.
- What is read is decoded on both sides (JSON), and what is saved is encoded (900 bytes of context).
- The floor of a turn is a row of 1 KB and the session's own, whichever way ours is saved; ours checks a lease. The floor of
  a claim is a queue's; ours gives each tenant its turn and takes over what dead runners left.
- On Linux with two cores or more, the caller has one to itself and the server the others (`benchmarks/placing.py`).
  Left to itself, the scheduler lets the server process of one connection share the caller's core, where it is woken
  some 40 µs sooner, and whose it is has nothing to do with the work.
- Async calls are awaited one after the other. On SQLite and MariaDB their floor is the blocking call.
"""


def section(bench: Bench) -> Section:
    """Medians of every operation on every database there is."""
    results: list[Result] = []
    left_out = []
    for name, measure in (("PostgreSQL", _postgresql), ("SQLite", _sqlite), ("MariaDB", _mariadb)):
        try:
            results += measure(bench)
        except ServerUnavailable as reason:
            left_out.append(f"{name} left out: {reason}.\n")
    return Section(
        [result.figures() for result in results],
        [grid.rich() for grid in _grids(results)],
        "\n".join([_HEAD.format(turns=f"{bench.turns:,}"), *left_out, *_markdown(results)]),
        asked=_asked(results),
        charts=[_chart(results)],
    )


def _postgresql(bench: Bench) -> list[Result]:
    seconds = _SECONDS["PostgreSQL"]
    with bench.postgresql("hot_sync") as url, apart(bench.postgres.pid):
        results = postgresql.sync_results(url, bench.turns, _progress(bench, "PostgreSQL, sync"), bench.until(seconds))
    with bench.postgresql("hot_async") as url, apart(bench.postgres.pid):
        progress = _progress(bench, "PostgreSQL, async")
        return results + asyncio.run(postgresql.async_results(url, bench.turns, progress, bench.until(seconds)))


def _sqlite(bench: Bench) -> list[Result]:
    with bench.sqlite("hot_sync") as sync, bench.sqlite("hot_async") as asynchronous:
        return _both(bench, "SQLite", floor_sqlite, (sync, asynchronous))


def _mariadb(bench: Bench) -> list[Result]:
    with (
        bench.on_mariadb("hot_sync") as sync,
        bench.on_mariadb("hot_async") as asynchronous,
        apart(bench.mariadb.pid),
    ):
        return _both(bench, "MariaDB", floor_mariadb, (sync, asynchronous))


def _both(bench: Bench, name: str, floor: Any, urls: tuple[str, str]) -> list[Result]:
    results = []
    kinds: Sequence[tuple[str, Callable[..., list[Result]]]] = (
        ("sync", dbapi.sync_results),
        ("async", dbapi.async_results),
    )
    for (kind, measure), url in zip(kinds, urls, strict=True):
        progress = _progress(bench, f"{name}, {kind}")
        results += measure(name, url, floor, bench.turns, progress, bench.until(_SECONDS[name]))
    return results


def _progress(bench: Bench, name: str) -> Progress:
    return bench.stage(name, bench.turns + warming(bench.turns))


def _settings(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(result.setting for result in results))


def _grids(results: Sequence[Result]) -> list[Grid]:
    return [
        Grid(
            ("operation", "floor (µs)", "lifecycle (µs)", "ratio", "times"),
            [
                (one.name, f"{one.floor_us:,.0f}", f"{one.ours_us:,.0f}", f"{one.ratio:.2f}", f"{one.turns:,}")
                for one in results
                if one.setting == setting
            ],
            title=setting,
        )
        for setting in _settings(results)
    ]


def _markdown(results: Sequence[Result]) -> list[str]:
    return [f"### {grid.title}\n\n{grid.markdown()}" for grid in _grids(results)]


def _asked(results: Sequence[Result]) -> dict[str, float]:
    """On PostgreSQL; of sync and async the one that is further from its floor."""
    names = {
        "get_session": "get_session",
        "load_state": "load_state",
        "one caller, add_message": MESSAGE_TURN,
        "one caller, save_state(append=)": STATE_TURN,
    }
    ratios = {
        asked: [one.ratio for one in results if one.name == name and one.setting.startswith("PostgreSQL")]
        for asked, name in names.items()
    }
    return {asked: max(found) for asked, found in ratios.items() if found}


def _chart(results: Sequence[Result]) -> Chart:
    names = list(dict.fromkeys(result.name for result in results))
    ratios = {(one.setting, one.name): one.ratio for one in results}
    sync = {
        setting: [ratios[setting, name] for name in names]
        for setting in _settings(results)
        if setting.endswith(", sync")
    }
    return Chart("operations", "Times the floor, sync (less is better)", names, sync, "times the floor")
