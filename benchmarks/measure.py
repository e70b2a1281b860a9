"""Interleaved timing: what is compared runs by turns, so that a noisy machine disturbs all of it alike."""

import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Progress = Callable[[], None]


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


def compare(setting: str, pairs: Sequence[Pair], turns: int, progress: Progress) -> list[Result]:
    """Time every pair `turns` times, by turns, after a tenth as many unmeasured ones."""
    taken = _Taken(pairs, turns)
    for call, turn, spent in taken.calls(progress):
        started = time.perf_counter_ns()
        call(turn)
        spent.append(time.perf_counter_ns() - started)
    return taken.results(setting)


async def compare_async(setting: str, pairs: Sequence[AsyncPair], turns: int, progress: Progress) -> list[Result]:
    """`compare`, awaiting each call within one task."""
    taken = _Taken(pairs, turns)
    for call, turn, spent in taken.calls(progress):
        started = time.perf_counter_ns()
        await call(turn)
        spent.append(time.perf_counter_ns() - started)
    return taken.results(setting)


class _Taken:
    """In which order the calls are made, and what each took in nanoseconds."""

    def __init__(self, pairs: Sequence[Pair | AsyncPair], turns: int) -> None:
        self._pairs = pairs
        self._turns = turns
        self._spent: dict[str, tuple[list[int], list[int]]] = {pair.name: ([], []) for pair in pairs}

    def calls(self, progress: Progress) -> Iterator[tuple[Callable[[int], Any], int, list[int]]]:
        """What to call next, with which turn, and where its time goes; without garbage collection in between."""
        warm_up = max(20, self._turns // 10)
        gc.collect()
        gc.disable()
        try:
            for turn in range(self._turns + warm_up):
                for pair in self._pairs:
                    # Who goes first changes, so that neither always meets the other's leavings.
                    for side in (0, 1) if turn % 2 else (1, 0):
                        spent = self._spent[pair.name][side] if turn >= warm_up else []
                        yield (pair.ours if side else pair.floor), turn, spent
                progress()
                if turn % 200 == 0:
                    gc.collect()
        finally:
            gc.enable()

    def results(self, setting: str) -> list[Result]:
        """The medians."""
        return [_result(setting, name, sides) for name, sides in self._spent.items()]


def _result(setting: str, name: str, sides: tuple[list[int], list[int]]) -> Result:
    floor, ours = (statistics.median(side) / 1000 for side in sides)
    return Result(setting, name, floor, ours, len(sides[0]))
