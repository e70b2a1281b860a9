"""What turns take once they are saved: bytes on the disk, bytes of WAL, and time, as a conversation grows."""

import asyncio
import base64
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
import sqlalchemy as sa

from benchmarks.bench import Bench, Section
from benchmarks.charts import Chart
from benchmarks.grid import Grid
from benchmarks.measure import alternate, warming
from benchmarks.stores import MISSING_PEERS, Appends, Checkpoints, Floor, Messages, Store, Wholes, peers
from lifecycle import SessionManager
from tests.populations import connected
from tests.servers import ServerUnavailable

PAYLOAD: Final = 2048
"""Bytes of each turn's text. Six random bits a character: what compresses repetitions finds none."""
_TURNS: Final = 1000
_MARKS: Final = (200, 1000)
# A store that takes longer than this, in seconds, is stopped where it is.
_PATIENCE: Final = 40.0
# The turns that a figure at a turn is the median of.
_NEAR: Final = {10: range(5, 16), 100: range(90, 111), 1000: range(980, 1001)}
# A page is four turns: so many turns tell what one takes.
_YOUNG, _OLD = (1, 100), (901, 1000)
_YOUNG_TURNS, _TIMES = 10, 150
_SIZE: Final = """
SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind IN ('r', 'm') AND relnamespace = 'public'::regnamespace
"""

_HEAD: Final = """## Storage

One session gets turn after turn of {payload:,} bytes that cannot be compressed. What is stored is what all tables of the
store have grown by (`pg_total_relation_size`), as it stands behind the last turn and without a vacuum, divided by the bytes
of the turns. That tables and indexes have their first pages is not counted: another session has had a turn before. WAL is
what the log has grown by from before to behind a turn, the median of some twenty turns near it, which leaves the images of
whole pages behind a checkpoint out. Lifecycle saves a turn with `save_state(append=...)`, as a message, with the whole
conversation in `save_state(conversation=...)`, or with `append` and a checkpoint at every step; LangGraph's checkpoints are
its way to save. A store that took longer than {patience:.0f} s was stopped there.
"""
_GROWTH: Final = """A turn when the conversation is short and when it is long, saved with `save_state(append=...)`, by turns:
{young:,.0f} µs at turn 10 and {old:,.0f} µs at turn {turns:,}, {ratio:.2f} times as long.
"""


@dataclass(slots=True)
class Kept:
    """What a store took: bytes of WAL for each turn, and bytes stored behind some turns."""

    name: str
    wal: list[int] = field(default_factory=list)
    stored: dict[int, int] = field(default_factory=dict)

    def near(self, turn: int) -> float | None:
        """The WAL of a turn; None where the store did not come to it."""
        found = [self.wal[number - 1] for number in _NEAR[turn] if number <= len(self.wal)]
        return statistics.median(found) if len(found) == len(_NEAR[turn]) else None

    def times(self, turns: int) -> float | None:
        """Bytes stored behind so many turns for each byte of theirs."""
        return self.stored[turns] / (turns * PAYLOAD) if turns in self.stored else None

    def growth(self) -> float | None:
        """Bytes stored by one of the last hundred turns, times those by one of the first."""
        ends = [self.stored.get(turn) for turn in (_YOUNG[1], _OLD[0] - 1, _OLD[1])]
        young, before, after = ends
        return (after - before) / young if young and before and after else None


def section(bench: Bench) -> Section:
    """All stores on PostgreSQL, one after the other, as bytes do not depend on the others; ours on SQLite and MariaDB."""
    turns = bench.pick(_TURNS, 20)
    kept: list[Kept] = []
    taken: dict[str, list[float]] = {}
    for number, store in enumerate((Floor(), Messages(), Appends(), Wholes(), Checkpoints(), *peers())):
        progress = bench.stage(f"storage: {store.name}", turns)
        with bench.postgresql(f"storage_{number}", migrated=store.ours) as url:
            watched = _Watched(bench, url, store, turns, progress)
            kept.append(asyncio.run(watched.measure()))
            taken |= watched.taken
    left_out = []
    for database in ("SQLite", "MariaDB"):
        try:
            kept.append(_elsewhere(bench, database, turns))
        except ServerUnavailable as reason:
            left_out.append(f"{database} left out: {reason}.\n")
    return _section(turns, kept, taken, left_out)


class _Watched:
    """A store with a look at the server's log and tables."""

    def __init__(self, bench: Bench, url: str, store: Store, turns: int, progress: Callable[[], None]) -> None:
        self._bench, self._url, self._store, self._turns, self._progress = bench, url, store, turns, progress
        # How long turns took, of a young and an old session.
        self.taken: dict[str, list[float]] = {}

    async def measure(self) -> Kept:
        """Save turn after turn, as far as it goes."""
        texts = _texts(self._turns)
        kept = Kept(self._store.name)
        with psycopg.connect(self._url, autocommit=True) as raw:
            await self._store.open(self._url)
            try:
                await self._store.create("first")
                await self._store.turn("first", 0, texts[0])
                raw.execute("CHECKPOINT")
                empty = _number(raw, _SIZE)
                await self._store.create("kept")
                until = self._bench.until(_PATIENCE)
                for number, text in enumerate(texts):
                    before = _place(raw)
                    await self._store.turn("kept", number, text)
                    kept.wal.append(_place(raw) - before)
                    if (done := number + 1) in {*_MARKS, _YOUNG[1], _OLD[0] - 1, self._turns}:
                        kept.stored[done] = _number(raw, _SIZE) - empty
                    self._progress()
                    if time.monotonic() > until:
                        kept.stored[done] = _number(raw, _SIZE) - empty
                        break
                found = await self._store.load("kept")
                assert found == len(kept.wal), f"{self._store.name} has {found} turns of {len(kept.wal)}"
                if type(self._store) is Appends:
                    await self._compare_ages(len(kept.wal), texts[0])
            finally:
                await self._store.close()
        return kept

    async def _compare_ages(self, done: int, text: str) -> None:
        """Time turns of the session that has many beside those of sessions that have few."""
        times = self._bench.pick(_TIMES, 5)
        numbers = {"kept": done}

        def turn(session: str) -> Awaitable[None]:
            numbers[session] = numbers.get(session, 0) + 1
            return self._store.turn(session, numbers[session] - 1, text)

        for number in range((times + warming(times)) // _YOUNG_TURNS + 1):
            await self._store.create(f"young-{number}")
            for _ in range(_YOUNG_TURNS // 2):
                await turn(f"young-{number}")
        calls: dict[str, Callable[[int], Awaitable[Any]]] = {
            "young": lambda number: turn(f"young-{number // _YOUNG_TURNS}"),
            "old": lambda _: turn("kept"),
        }
        self.taken = await alternate(calls, times, lambda: None)


def _texts(turns: int) -> list[str]:
    dice = random.Random(7)
    return [base64.b64encode(dice.randbytes(PAYLOAD * 3 // 4)).decode() for _ in range(turns)]


def _number(raw: psycopg.Connection[Any], statement: str) -> int:
    row = raw.execute(statement.encode()).fetchone()
    assert row is not None
    return int(row[0])


def _place(raw: psycopg.Connection[Any]) -> int:
    """How many bytes of WAL there are."""
    return _number(raw, "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")


def _elsewhere(bench: Bench, database: str, turns: int) -> Kept:
    """Ours with `append` on another database, which has no log to look at."""
    kept = Kept(f"Lifecycle, save_state(append=), {database}")
    progress = bench.stage(f"storage: {database}", turns)
    made = bench.sqlite if database == "SQLite" else bench.on_mariadb
    with made("storage") as url, SessionManager.open(url) as manager:
        texts = _texts(turns)
        for session in ("first", "kept"):
            manager.create_session(session_id=session, title=session)
        manager.save_state("first", append=[{"role": "assistant", "content": texts[0]}])
        empty = _size(url)
        for number, text in enumerate(texts, 1):
            manager.save_state("kept", append=[{"role": "assistant", "content": text}], step=number)
            if number in {*_MARKS, turns}:
                kept.stored[number] = _size(url) - empty
            progress()
    return kept


def _size(url: str) -> int:
    """Bytes of the tables: of the file, or as MariaDB reckons them."""
    with connected(url) as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all()
            return Path(url.removeprefix("sqlite:///")).stat().st_size
        tables = sa.inspect(connection).get_table_names()
        connection.exec_driver_sql(f"ANALYZE TABLE {', '.join(tables)}").all()
        total = "SELECT sum(data_length + index_length) FROM information_schema.tables WHERE table_schema = database()"
        return int(connection.exec_driver_sql(total).scalar_one())


def _section(turns: int, kept: Sequence[Kept], taken: dict[str, list[float]], left_out: Sequence[str]) -> Section:
    stored = Grid(
        ("store", *(f"stored a byte, {mark:,} turns" for mark in _MARKS), "turns", "stored (MB)"),
        [
            (
                one.name, *(_ratio(one.times(mark)) for mark in _MARKS),
                f"{max(one.stored):,}", f"{one.stored[max(one.stored)] / 1e6:,.1f}",
            )
            for one in kept
        ],
        title="storage",
    )  # fmt: skip
    logged = Grid(
        ("store", *(f"WAL of turn {turn:,} (bytes)" for turn in _NEAR), "1,000 to 10", "stored, last 100 to first 100"),
        [
            (
                one.name, *("" if (found := one.near(turn)) is None else f"{found:,.0f}" for turn in _NEAR),
                _ratio(_steeper(one)), _ratio(one.growth()),
            )
            for one in kept
            if one.wal
        ],
        title="WAL",
    )  # fmt: skip
    parts = [_HEAD.format(payload=PAYLOAD, patience=_PATIENCE), *left_out]
    if len(kept) < 10 - len(left_out):
        parts.append(f"Without peers: {MISSING_PEERS}.\n")
    young, old = statistics.median(taken["young"]), statistics.median(taken["old"])
    growth = _GROWTH.format(young=young, old=old, turns=turns, ratio=old / young)
    figures = {
        "payload": PAYLOAD,
        "stores": [
            {"store": one.name, "turns": max(one.stored), "stored": one.stored}
            | {"wal": {turn: one.near(turn) for turn in _NEAR}}
            for one in kept
        ],
        "turn_us": {"young": young, "old": old},
    }
    asked = _asked({one.name: one for one in kept})
    if turns == _TURNS:
        asked["time, append"] = old / young
    return Section(
        figures,
        [stored.rich(), logged.rich()],
        "\n".join([*parts, stored.markdown(), logged.markdown(), growth]),
        asked=asked,
        charts=_charts(kept),
    )


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}"


def _steeper(one: Kept) -> float | None:
    first, last = one.near(10), one.near(1000)
    return last / first if first and last else None


def _asked(kept: dict[str, Kept]) -> dict[str, float]:
    appends, wholes, checkpoints = (kept[store.name] for store in (Appends, Wholes, Checkpoints))
    found = {
        "stored, 200 turns": appends.times(200),
        "stored, 1,000 turns": appends.times(1000),
        "stored, 1,000 turns, whole": wholes.times(1000),
        "stored, checkpoints": checkpoints.times(1000),
        "WAL, append": _steeper(appends),
        "WAL, whole": _steeper(wholes),
        "growth, append": appends.growth(),
        "growth, whole": wholes.growth(),
    }
    return {name: value for name, value in found.items() if value is not None}


def _charts(kept: Sequence[Kept]) -> list[Chart]:
    names = [one.name for one in kept]
    stored = {f"{mark:,} turns": [one.times(mark) for one in kept] for mark in _MARKS}
    logged = {one.name: [one.near(turn) for turn in _NEAR] for one in kept if one.wal}
    turns = [f"turn {turn:,}" for turn in _NEAR]
    return [
        Chart(
            "storage", "Bytes stored for each byte saved (less is better)", names, stored, "times the payload", log=True
        ),
        Chart("wal", "WAL of a turn as the conversation grows", turns, logged, "bytes", log=True, lines=True),
    ]
