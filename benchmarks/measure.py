"""Interleaved timing: what is compared runs by turns, so that a noisy machine disturbs all of it alike."""

import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
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
    taken: dict[str, tuple[list[int], list[int]]] = {pair.name: ([], []) for pair in pairs}
    warm_up = max(20, turns // 10)
    gc.collect()
    gc.disable()
    try:
        for turn in range(turns + warm_up):
            for pair in pairs:
                # Who goes first changes, so that neither always meets the other's leavings.
                sides = (0, 1) if turn % 2 else (1, 0)
                for side in sides:
                    call = pair.ours if side else pair.floor
                    started = time.perf_counter_ns()
                    call(turn)
                    spent = time.perf_counter_ns() - started
                    if turn >= warm_up:
                        taken[pair.name][side].append(spent)
            progress()
            if turn % 200 == 0:
                gc.collect()
    finally:
        gc.enable()
    return [_result(setting, name, sides) for name, sides in taken.items()]


async def compare_async(setting: str, pairs: Sequence[AsyncPair], turns: int, progress: Progress) -> list[Result]:
    """`compare`, awaiting each call within one task."""
    taken: dict[str, tuple[list[int], list[int]]] = {pair.name: ([], []) for pair in pairs}
    warm_up = max(20, turns // 10)
    gc.collect()
    gc.disable()
    try:
        for turn in range(turns + warm_up):
            for pair in pairs:
                sides = (0, 1) if turn % 2 else (1, 0)
                for side in sides:
                    call = pair.ours if side else pair.floor
                    started = time.perf_counter_ns()
                    await call(turn)
                    spent = time.perf_counter_ns() - started
                    if turn >= warm_up:
                        taken[pair.name][side].append(spent)
            progress()
            if turn % 200 == 0:
                gc.collect()
    finally:
        gc.enable()
    return [_result(setting, name, sides) for name, sides in taken.items()]


def _result(setting: str, name: str, sides: tuple[list[int], list[int]]) -> Result:
    floor, ours = (statistics.median(side) / 1000 for side in sides)
    return Result(setting, name, floor, ours, len(sides[0]))
