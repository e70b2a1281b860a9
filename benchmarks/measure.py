"""Interleaved timing: what is compared runs by turns, so that a noisy machine disturbs all of it alike."""

import gc
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Progress = Callable[[], None]
# So often at the least each call is timed, however little time there is.
_LEAST: Final = 5


@dataclass(frozen=True, slots=True)
class Pair:
    """One operation: as raw driver calls (the floor) and through a manager. Each takes the number of the turn."""

    name: str
    floor: Callable[[int], Any]
    ours: Callable[[int], Any]


@dataclass(frozen=True, slots=True)
class AsyncPair:
    """A `Pair` of coroutine functions."""

    name: str
    floor: Callable[[int], Awaitable[Any]]
    ours: Callable[[int], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Result:
    """Medians in microseconds over `turns` turns, and the ratio of ours to the floor."""

    setting: str
    name: str
    floor_us: float
    ours_us: float
    turns: int

    @property
    def ratio(self) -> float:
        """How many times the floor's median ours is."""
        return self.ours_us / self.floor_us

    def figures(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "setting": self.setting,
            "operation": self.name,
            "floor_us": round(self.floor_us, 1),
            "lifecycle_us": round(self.ours_us, 1),
            "ratio": round(self.ratio, 3),
            "turns": self.turns,
        }


def compare(
    setting: str, pairs: Sequence[Pair], turns: int, progress: Progress, until: float = math.inf
) -> list[Result]:
    """Time every pair `turns` times, by turns, after a tenth as many unmeasured ones; fewer where `until` comes first.

    `until` is a time of `time.monotonic`.
    """
    taken = _Taken({pair.name: (pair.floor, pair.ours) for pair in pairs}, turns, until)
    for call, turn, spent in taken.calls(progress):
        started = time.perf_counter_ns()
        call(turn)
        spent.append(time.perf_counter_ns() - started)
    return _results(setting, taken)


async def compare_async(
    setting: str, pairs: Sequence[AsyncPair], turns: int, progress: Progress, until: float = math.inf
) -> list[Result]:
    """`compare`, awaiting each call within one task."""
    sides = {pair.name: (pair.floor, pair.ours) for pair in pairs}
    return _results(setting, await _awaited(sides, turns, progress, until))


async def alternate(
    calls: Mapping[str, Callable[[int], Awaitable[Any]]], turns: int, progress: Progress, until: float = math.inf
) -> dict[str, list[float]]:
    """What each of several calls took at each turn, in microseconds; they take turns as the sides of `compare` do."""
    taken = await _awaited({"": tuple(calls.values())}, turns, progress, until)
    return {name: [one / 1000 for one in spent] for name, spent in zip(calls, taken.spent[""], strict=True)}


async def _awaited(
    sides: Mapping[str, tuple[Callable[[int], Any], ...]], turns: int, progress: Progress, until: float
) -> "_Taken":
    taken = _Taken(sides, turns, until)
    for call, turn, spent in taken.calls(progress):
        started = time.perf_counter_ns()
        await call(turn)
        spent.append(time.perf_counter_ns() - started)
    return taken


class _Taken:
    """In which order the calls are made, and what each took in nanoseconds: for each name, of each of its sides."""

    def __init__(self, sides: Mapping[str, tuple[Callable[[int], Any], ...]], turns: int, until: float) -> None:
        self._sides = sides
        self._turns = turns
        self._until = until
        self.spent: dict[str, tuple[list[int], ...]] = {name: tuple([] for _ in calls) for name, calls in sides.items()}

    def calls(self, progress: Progress) -> Iterator[tuple[Callable[[int], Any], int, list[int]]]:
        """What to call next, with which turn, and where its time goes; without garbage collection in between."""
        warm_up = warming(self._turns)
        gc.collect()
        gc.disable()
        try:
            for turn in range(self._turns + warm_up):
                if turn >= warm_up + _LEAST and time.monotonic() > self._until:
                    return
                for name, calls in self._sides.items():
                    # Who goes first changes, so that nobody always meets the same one's leavings.
                    for place in range(len(calls)):
                        side = (turn + place) % len(calls)
                        yield calls[side], turn, self.spent[name][side] if turn >= warm_up else []
                progress()
                if turn % 200 == 0:
                    gc.collect()
        finally:
            gc.enable()


def warming(turns: int) -> int:
    """How many turns go unmeasured before so many: PostgreSQL settles on a plan after five."""
    return max(turns // 10, min(turns, 20))


def _results(setting: str, taken: _Taken) -> list[Result]:
    results = []
    for name, sides in taken.spent.items():
        floor, ours = (statistics.median(side) / 1000 for side in sides)
        results.append(Result(setting, name, floor, ours, len(sides[0])))
    return results
