"""Which waiting writes a lane takes, without a database: what a lane does with them is the test's."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from lifecycle.drivers.postgresql_group import LANES, Group, Write

CALLERS = 40


@dataclass
class OfSession:
    """What a group wants to know of a request."""

    session_id: str
    tenant: str = ""


class Lanes:
    """The connections: they hold what they are given until they are let go, and note each batch."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.batches: list[list[str]] = []
        self.flying: list[str] = []
        self.met_itself = False

    async def alone(self, *_: object) -> Any:
        """One write."""
        await self.free.wait()
        return []

    async def together(self, batch: list[Write]) -> Any:
        """Several."""
        names = [write.request.session_id for write in batch]
        self.batches.append(names)
        self.met_itself |= any(name in self.flying for name in names)
        self.flying += names
        for _ in range(5):
            await asyncio.sleep(0)
        for name in names:
            self.flying.remove(name)
        return [[] for _ in batch]


def sizes(names: list[str], most_lanes: int) -> Lanes:
    """The lanes behind writes of these sessions that came while all of them were taken."""

    async def main() -> Lanes:
        lanes = Lanes()
        group = Group(lanes.alone, lanes.together, most_lanes)
        statement: Any = None
        tasks = [
            asyncio.create_task(group.run(OfSession(name), statement, []))
            for name in (*(f"held-{i}" for i in range(min(LANES, most_lanes))), *names)
        ]
        await asyncio.sleep(0)
        lanes.free.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 30)
        await group.close()
        return lanes

    return asyncio.run(main())


def test_each_lane_takes_its_share() -> None:
    """Halves, where there are two."""
    lanes = sizes([f"s-{i:02}" for i in range(CALLERS)], 8)
    assert [len(batch) for batch in lanes.batches] == [CALLERS // 2] * 2


def test_the_only_lane_takes_all() -> None:
    """There is nobody to share with."""
    lanes = sizes([f"s-{i:02}" for i in range(CALLERS)], 1)
    assert [len(batch) for batch in lanes.batches] == [CALLERS]


def test_few_are_not_worth_two_transactions() -> None:
    """They go together."""
    assert [len(batch) for batch in sizes(["a", "b", "c", "d"], 8).batches] == [4]


@pytest.mark.parametrize("most_lanes", [1, 2, 8])
def test_the_writes_of_a_session_go_together(most_lanes: int) -> None:
    """In their order, and never in both lanes: the one would wait for the other."""
    names = [name for i in range(CALLERS // 2) for name in ("hot", f"s-{i:02}")]
    lanes = sizes(names, most_lanes)
    assert [batch.count("hot") for batch in lanes.batches if "hot" in batch] == [CALLERS // 2]
    assert not lanes.met_itself
    assert sorted(name for batch in lanes.batches for name in batch) == sorted(names)


def test_a_session_that_is_held_up_does_not_hold_up_its_own_for_good() -> None:
    """What is only of sessions that another lane is at is taken all the same, when nothing else waits."""
    lanes = sizes(["hot"] * 3 * CALLERS, 8)
    assert sum(len(batch) for batch in lanes.batches) == 3 * CALLERS
    assert lanes.met_itself
