"""Turns saved and loaded, by the floor, by us and by our peers, on one server, by turns."""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.bench import Bench, Section
from benchmarks.charts import Chart, figure
from benchmarks.grid import Grid
from benchmarks.measure import alternate, warming
from benchmarks.stores import MISSING_PEERS, Appends, Floor, Messages, Store, peers

CALLERS: Final = 64
_ROUNDS, _ROUND_SECONDS = 6, 1.0
# One caller goes from one of these sessions to the next, so that none becomes a long one.
_SESSIONS: Final = 10
_LATENCIES, _LATENCY_SECONDS = 200, 20.0
# A session of so many turns is loaded.
_LENGTH: Final = 50
_LOADS, _LOAD_SECONDS = 200, 10.0

_HEAD: Final = """## Turns

A turn is a message of 1 KB that is added to a session, durably. The floor is one hand-written statement for each commit,
which updates the session and inserts the message, on {connections} raw connections (`benchmarks/stores/floor.py`).
Lifecycle saves it with `add_message`, or in the conversation of the saved state (`save_state(append=...)`); each write
carries the session's lease and checks it. The peers are used as their frameworks use them, each with a pool of as many
connections (`benchmarks/stores/peers.py`): LangGraph's `AsyncPostgresSaver` puts a checkpoint, OpenAI's
`SQLAlchemySession` adds an item, ADK's `DatabaseSessionService` appends an event. All are in databases of their own on one
server.
"""
_TOGETHER: Final = """### {callers} callers

Each of {callers} callers saves turn after turn to a session of its own. The stores take turns in rounds of
{seconds:g} s; ratios are medians of {rounds} rounds, each beside the other's of the same time.
"""
_ALONE: Final = """### One caller

Calls awaited one after the other, each store's beside the others': a turn saved, and a session of {length} turns loaded to
go on with. Medians, and their ratio to the floor's.
"""


@dataclass(slots=True)
class Entry:
    """A store and what was measured of it: turns a second in each round, and how long a turn and a load took (µs)."""

    store: Store
    rates: list[float] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)

    async def create(self, session: str) -> None:
        """Make a session."""
        await self.store.create(session)
        self.done[session] = 0

    async def turn(self, session: str) -> None:
        """Save the session's next turn."""
        await self.store.turn(session, self.done[session])
        self.done[session] += 1

    async def check(self, session: str) -> None:
        """That the store has every turn it was given."""
        found = await self.store.load(session)
        assert found == self.done[session], f"{self.store.name} has {found} turns of {self.done[session]}"


def section(bench: Bench) -> Section:
    """Turns a second with many callers, and how long one turn and one load take with one."""
    entries = [Entry(store) for store in (Floor(), Messages(), Appends(), *peers())]
    with ExitStack() as databases:
        urls = [
            databases.enter_context(bench.postgresql(f"turns_{number}", migrated=entry.store.ours))
            for number, entry in enumerate(entries)
        ]
        asyncio.run(_measure(bench, entries, urls))
    return _section(entries)


async def _measure(bench: Bench, entries: Sequence[Entry], urls: Sequence[str]) -> None:
    try:
        for entry, url in zip(entries, urls, strict=True):
            await entry.store.open(url)
        await _together(bench, entries)
        await _alone(bench, entries)
    finally:
        for entry in entries:
            await entry.store.close()


async def _together(bench: Bench, entries: Sequence[Entry]) -> None:
    callers, rounds = bench.pick(CALLERS, 4), bench.pick(_ROUNDS, 1)
    names = [f"together-{number:03}" for number in range(callers)]
    progress = bench.stage(f"{callers} callers", len(entries) * (rounds + 1))
    for entry in entries:
        for name in names:
            await entry.create(name)
        await _round(entry, names, bench.pick(_ROUND_SECONDS / 2, 0.05))
        progress()
    for number in range(rounds):
        for place in range(len(entries)):
            entry = entries[(place + number) % len(entries)]
            entry.rates.append(await _round(entry, names, bench.pick(_ROUND_SECONDS, 0.05)))
            progress()
    for entry in entries:
        await entry.check(names[0])


async def _round(entry: Entry, names: Sequence[str], seconds: float) -> float:
    """Turns a second; the callers' last turns, which end behind the time, count with the time they take."""
    before = sum(entry.done.values())
    began = time.perf_counter()

    async def caller(name: str) -> None:
        while time.perf_counter() - began < seconds:
            await entry.turn(name)

    await asyncio.gather(*(caller(name) for name in names))
    return (sum(entry.done.values()) - before) / (time.perf_counter() - began)


async def _alone(bench: Bench, entries: Sequence[Entry]) -> None:
    names = [f"alone-{number:03}" for number in range(bench.pick(_SESSIONS, 2))]
    length = bench.pick(_LENGTH, 3)
    for entry in entries:
        for name in (*names, "long"):
            await entry.create(name)
        for _ in range(length):
            await entry.turn("long")
    by_name = {entry.store.name: entry for entry in entries}

    def turning(entry: Entry) -> Callable[[int], Any]:
        return lambda turn: entry.turn(names[turn % len(names)])

    def loading(entry: Entry) -> Callable[[int], Any]:
        return lambda _: entry.check("long")

    for what, seconds in (("turns", _LATENCY_SECONDS), ("loads", _LOAD_SECONDS)):
        turns = bench.pick(_LATENCIES if what == "turns" else _LOADS, 5)
        calls = {name: (turning if what == "turns" else loading)(entry) for name, entry in by_name.items()}
        progress = bench.stage(f"one caller: {what}", turns + warming(turns))
        for name, taken in (await alternate(calls, turns, progress, bench.until(seconds))).items():
            setattr(by_name[name], what, taken)
    for entry in entries:
        await entry.check(names[0])


def _section(entries: Sequence[Entry]) -> Section:
    floor = entries[0]
    together = Grid(
        ("store", "turns/s", "to the floor", "slowest round", "fastest round"),
        [
            (
                entry.store.name, figure(statistics.median(entry.rates)), f"{_times(entry.rates, floor.rates):.2f}",
                figure(min(entry.rates)), figure(max(entry.rates)),
            )
            for entry in entries
        ],
        title=f"{CALLERS} callers",
    )  # fmt: skip
    alone = Grid(
        ("store", "a turn (µs)", "to the floor", f"a load of {_LENGTH} turns (µs)", "to the floor"),
        [
            (entry.store.name, *_beside(entry.turns, floor.turns), *_beside(entry.loads, floor.loads))
            for entry in entries
        ],
        title="one caller",
    )
    text = _HEAD.format(connections=16)
    if len(entries) == 3:
        text += f"\nWithout peers: {MISSING_PEERS}.\n"
    parts = [
        text,
        _TOGETHER.format(callers=CALLERS, seconds=_ROUND_SECONDS, rounds=len(floor.rates)),
        together.markdown(),
        _ALONE.format(length=_LENGTH),
        alone.markdown(),
    ]
    return Section(
        [_figures(entry, floor) for entry in entries],
        [together.rich(), alone.rich()],
        "\n".join(parts),
        asked=_asked(entries),
        charts=_charts(entries),
    )


def _beside(taken: Sequence[float], floor: Sequence[float]) -> tuple[str, str]:
    return f"{statistics.median(taken):,.0f}", f"{statistics.median(taken) / statistics.median(floor):.2f}"


def _times(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of what was measured at the same time."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


def _figures(entry: Entry, floor: Entry) -> dict[str, Any]:
    return {
        "store": entry.store.name,
        "turns_per_second": statistics.median(entry.rates),
        "to_the_floor": _times(entry.rates, floor.rates),
        "rounds": entry.rates,
        "turn_us": statistics.median(entry.turns),
        "load_us": statistics.median(entry.loads),
    }


def _asked(entries: Sequence[Entry]) -> dict[str, float]:
    floor, messages, appends, *others = entries
    against = {"the floor": floor} | {entry.store.name: entry for entry in others}
    return {
        f"turns, {how}, {name}": _times(ours.rates, other.rates)
        for how, ours in (("add_message", messages), ("save_state(append=)", appends))
        for name, other in against.items()
    }


def _charts(entries: Sequence[Entry]) -> list[Chart]:
    names = [entry.store.name for entry in entries]
    rates = {"turns": [statistics.median(entry.rates) for entry in entries]}
    alone = {
        "save a turn": [statistics.median(entry.turns) / 1000 for entry in entries],
        f"load {_LENGTH} turns": [statistics.median(entry.loads) / 1000 for entry in entries],
    }
    return [
        Chart("turns", f"Turns a second, {CALLERS} callers (more is better)", names, rates, "turns a second"),
        Chart("latency", "One caller (less is better)", names, alone, "milliseconds"),
    ]
