"""Many sessions at once: saved in one call, and imported, beside what it takes one by one, and a COPY by hand."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
import sqlalchemy as sa

from benchmarks.bench import Bench, Section
from benchmarks.grid import Grid
from benchmarks.payload import context
from lifecycle import SessionManager
from lifecycle.models import tables as t
from lifecycle.transfer.exporting import export_sessions
from lifecycle.transfer.importing import import_sessions
from tests.populations import TABLES, connected, populate
from tests.servers import ServerUnavailable

_SESSIONS: Final = 1_000
_ROUNDS, _LEAST = 5, 2
_WARMING: Final = 50
_SAVING_SECONDS: Final = 2.0  # on each database
# Of each session, and with all else that it owns, about two dozen rows.
_IMPORTED, _MESSAGES = 1_000, 10
_IMPORTING_SECONDS: Final = 4.0

_HEAD: Final = """## Many sessions at once

`save_many` of {sessions:,} sessions, 900 bytes of context each, beside as many calls of `save_state` by the same one caller: saves
a second. Then `lifecycle import` of {rows:,} rows of all tables into an empty PostgreSQL, beside the same rows sent by a
hand-written COPY for each table through raw psycopg, in one transaction too: once from the same file, read as JSON and
not checked, and once from tuples that are in memory already (`benchmarks/many.py`). Medians, by turns.
"""


@dataclass(frozen=True, slots=True)
class Saved:
    """Saves a second: one call each, and one call for all."""

    database: str
    one_by_one: float
    at_once: float

    @property
    def ratio(self) -> float:
        """How many times as many are saved at once."""
        return self.at_once / self.one_by_one


@dataclass(frozen=True, slots=True)
class Imported:
    """Rows a second: of an import, of a COPY by hand from the same file, and of one from memory."""

    rows: int
    ours: float
    from_file: float
    from_memory: float


def section(bench: Bench) -> Section:
    """Saves on every database there is, and imports on PostgreSQL."""
    sessions = bench.pick(_SESSIONS, 20)
    made = {"PostgreSQL": bench.postgresql, "SQLite": bench.sqlite, "MariaDB": bench.on_mariadb}
    progress = bench.stage("many sessions at once", len(made) + 1)
    imported = _imported(bench)  # first: without PostgreSQL there is no section
    progress()
    saved: list[Saved] = []
    left_out = []
    for database, open_ in made.items():
        try:
            saved.append(_saved(bench, database, open_("many"), sessions))
        except ServerUnavailable as reason:
            left_out.append(f"{database} left out: {reason}.\n")
        progress()
    saves = Grid(
        ("database", "save_state, one by one (saves/s)", "save_many (saves/s)", "ratio"),
        [(one.database, f"{one.one_by_one:,.0f}", f"{one.at_once:,.0f}", f"{one.ratio:.2f}") for one in saved],
    )
    sides = (
        ("import", imported.ours),
        ("COPY from the file", imported.from_file),
        ("COPY from memory", imported.from_memory),
    )
    imports = Grid(
        ("PostgreSQL", "rows/s", "import, times that"),
        [(name, f"{rate:,.0f}", f"{imported.ours / rate:.2f}") for name, rate in sides],
    )
    head = _HEAD.format(sessions=sessions, rows=imported.rows)
    text = "\n".join((head, *left_out, saves.markdown(), imports.markdown()))
    figures = {"saved": [asdict(one) | {"ratio": one.ratio} for one in saved], "imported": asdict(imported)}
    return Section(figures, [saves.rich(), imports.rich()], text)


def _saved(bench: Bench, database: str, opened: AbstractContextManager[str], sessions: int) -> Saved:
    names = [f"s-{number:04}" for number in range(sessions)]
    with opened as url, SessionManager.open(url) as manager:
        _make(url, names)

        def one_by_one(turn: int, some: Sequence[str] = names) -> None:
            for name in some:
                manager.save_state(name, context=context(turn), step=turn)

        def at_once(turn: int, some: Sequence[str] = names) -> None:
            saves = [{"session_id": name, "context": context(turn), "step": turn} for name in some]
            failed = [one for one in manager.save_many(saves) if not isinstance(one, int)]
            if failed:
                raise failed[0]

        for side in (one_by_one, at_once):
            side(0, names[:_WARMING])
        rates = _rates([one_by_one, at_once], sessions, bench.pick(_ROUNDS, 1), bench.until(_SAVING_SECONDS))
    return Saved(database, *rates)


def _make(url: str, names: Sequence[str]) -> None:
    """Make sessions, and have them known to the planner, as the server would by itself in a while."""
    at = datetime.now(UTC)
    row = {
        "tenant": "", "kind": "chat", "metadata": "{}", "config": "{}", "state": "active", "version": 1, "next_seq": 2,
        "created_at": at, "updated_at": at, "listed_at": at.replace(second=0, microsecond=0), "last_active_at": at,
        "idle_active": 86_400, "idle_suspended": 2_592_000, "expires_at": at + timedelta(days=1),
    }  # fmt: skip
    with connected(url) as connection:
        connection.execute(sa.insert(t.sessions), [row | {"session_id": name} for name in names])
        if connection.dialect.name != "mysql":  # which does so at once
            connection.exec_driver_sql("ANALYZE")


def _imported(bench: Bench) -> Imported:
    file = bench.folder / "many.jsonl"
    with bench.sqlite("many_source") as source:
        populate(source, bench.pick(_IMPORTED, 10), _MESSAGES)
        total = export_sessions(source, str(file)).rows_total
    kept = _read(file)

    def into(empty: Callable[[str], object]) -> Callable[[int], float]:
        def timed(turn: int) -> float:
            with bench.postgresql(f"many_{turn}") as url:
                began = time.perf_counter()
                empty(url)
                return time.perf_counter() - began

        return timed

    sides = [
        into(lambda url: import_sessions(url, str(file))),
        into(lambda url: _copy(url, _read(file))),
        into(lambda url: _copy(url, kept)),
    ]
    rates = _rates(sides, total, bench.pick(_ROUNDS, 1), bench.until(_IMPORTING_SECONDS))
    return Imported(total, *rates)


def _rates(sides: Sequence[Callable[[int], float | None]], count: int, rounds: int, until: float) -> list[float]:
    """How much of `count` each side does a second; one that knows better says itself how long it took."""
    taken: list[list[float]] = [[] for _ in sides]
    for turn in range(1, rounds + 1):
        if turn > _LEAST and time.monotonic() > until:
            break
        for place in range(len(sides)):
            side = (turn + place) % len(sides)
            began = time.perf_counter()
            told = sides[side](turn)
            spent = time.perf_counter() - began if told is None else told
            taken[side].append(spent)
    return [count / statistics.median(one) for one in taken]


_COLUMNS: Final = {table.name: [column.name for column in table.c] for table in TABLES}
_TXID: Final = "1"  # what a file does not have


def _read(file: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of an export by table, as anybody would read them who trusts it."""
    rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _COLUMNS}
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            ((name, row),) = json.loads(line).items()
            if name in rows:
                if name == "session_transitions":
                    row["txid"] = _TXID
                rows[name].append(tuple(map(row.get, _COLUMNS[name])))
    return rows


def _copy(url: str, rows: dict[str, list[tuple[Any, ...]]]) -> None:
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        for name, of_table in rows.items():
            with cursor.copy(f"COPY {name} ({', '.join(_COLUMNS[name])}) FROM STDIN".encode()) as copy:
                for row in of_table:
                    copy.write_row(row)
