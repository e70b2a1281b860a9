"""The schedule of the faults: which one, to whom, for how long. The dice are seeded; time is not."""

import heapq
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos.cast import Cast
from tests.chaos.stage import Stage

# Now and then, and before the end, there is a calm in which one process dies. In seconds.
_BETWEEN_CALMS = 30.0
_CALM = 4.0


@dataclass(order=True)
class _Later:
    at: float
    number: int
    do: Callable[[], object] = field(compare=False)


class Faults:
    """Does harm to a cast and its stage, a fault at a time, and has each come to its end.

    One player at least is always left alone, but for the database.
    """

    def __init__(self, stage: Stage, cast: Cast, ttl: float, seed: int) -> None:
        self._stage = stage
        self._cast = cast
        self._ttl = ttl
        self._dice = random.Random(seed)
        self._later: list[_Later] = []
        self._numbers = itertools.count()
        # Who cannot work now, and why.
        self._out: dict[int, str] = {}
        self.counts: Counter[str] = Counter()
        self._weights: dict[Callable[[], None], int] = {self._kill: 6, self._freeze: 3}
        if stage.server is not None:
            self._weights |= {self._kill_server: 1, self._restart_server: 1}
            self._weights |= {self._cut: 3, self._delay: 1, self._swallow: 3}
        self._down = False

    def go_on(self, until: float, each_second: Callable[[], None]) -> None:
        """Fault after fault until a moment of the monotonic clock."""
        next_second, next_calm = 0.0, min(until - _CALM, time.monotonic() + _BETWEEN_CALMS)
        while (now := time.monotonic()) < until:
            if now >= next_second and not self._down:
                each_second()
                next_second = now + 1.0
            self._run_due(now)
            self._replace_deserters()
            if now >= next_calm:
                self._kill_in_calm(each_second)
                next_calm = time.monotonic() + _BETWEEN_CALMS
                continue
            (fault,) = self._dice.choices(list(self._weights), weights=list(self._weights.values()))
            fault()
            self._pause(min(until, time.monotonic() + self._dice.uniform(0.1, 0.8)))

    def freeze_all(self) -> None:
        """As a machine sleeps: all wake with their leases run out, and nobody is dead."""
        self._cast.set_calm(calm=True)
        self.stop()
        self.counts["sleeps of all"] += 1
        everybody = range(len(self._cast.urls))
        for slot in everybody:
            self._cast.freeze(slot)
        time.sleep(2 * self._ttl)
        for slot in everybody:
            self._cast.thaw(slot)

    def stop(self) -> None:
        """End them all, and wait until everybody is there again."""
        while self._later:
            heapq.heappop(self._later).do()
        self._cast.until(self._all_up)

    def _kill_in_calm(self, each_second: Callable[[], None]) -> None:
        """All is well but for one process that dies: the time that it takes the others is that of the leases alone."""
        self._cast.set_calm(calm=True)
        self.stop()
        each_second()
        self._pause(time.monotonic() + self._ttl + 1.0)
        slot = self._cast.busiest()
        self.counts["kills in calm"] += 1
        self._cast.kill(slot, calm=True)
        self._pause(time.monotonic() + self._ttl + 3.0)
        self._cast.start(slot)
        self._cast.set_calm(calm=False)

    def _all_up(self) -> bool:
        self._replace_deserters()
        return self._cast.up()

    def _pause(self, until: float) -> None:
        while (now := time.monotonic()) < until:
            self._run_due(now)
            time.sleep(min(0.05, until - now))

    def _run_due(self, now: float) -> None:
        while self._later and self._later[0].at <= now:
            heapq.heappop(self._later).do()

    def _in(self, seconds: float, do: Callable[[], object]) -> None:
        heapq.heappush(self._later, _Later(time.monotonic() + seconds, next(self._numbers), do))

    def _replace_deserters(self) -> None:
        if self._down:
            return
        for slot in range(len(self._cast.urls)):
            if slot not in self._out and not self._cast.alive(slot):
                self._cast.start(slot)

    def _victim(self, why: str) -> int | None:
        free = [slot for slot in range(len(self._cast.urls)) if slot not in self._out and self._cast.alive(slot)]
        if len(free) < 2:
            return None
        slot = self._dice.choice(free)
        self._out[slot] = why
        return slot

    def _kill(self) -> None:
        slot = self._victim("killed")
        if slot is None:
            return
        self.counts["kills"] += 1
        self._cast.kill(slot)

        def replace() -> None:
            del self._out[slot]
            self._cast.start(slot)

        self._in(self._dice.uniform(0.0, 1.0), replace)

    def _freeze(self) -> None:
        slot = self._victim("frozen")
        if slot is None:
            return
        self.counts["stops"] += 1
        self._cast.freeze(slot)

        def thaw() -> None:
            self._cast.thaw(slot)
            del self._out[slot]

        self._in(self._ttl * self._dice.uniform(0.5, 3.0), thaw)

    def _kill_server(self) -> None:
        server = self._stage.server
        if server is None or self._down:
            return
        self.counts["server kills"] += 1
        server.kill()
        self._down = True

        def start() -> None:
            server.start()
            self._down = False

        self._in(self._dice.uniform(0.0, self._ttl), start)

    def _restart_server(self) -> None:
        server = self._stage.server
        if server is None or self._down:
            return
        self.counts["server restarts"] += 1
        server.restart(self._dice.choice(["fast", "immediate"]))

    def _cut(self) -> None:
        self.counts["cuts"] += self._dice.choice(self._stage.weathers).cut()

    def _delay(self) -> None:
        slot = self._victim("delayed")
        if slot is None:
            return
        self.counts["delays"] += 1
        weather = self._stage.weathers[slot]
        weather.delay(self._dice.uniform(0.005, 0.1))

        def clear() -> None:
            weather.clear()
            del self._out[slot]

        self._in(self._dice.uniform(0.5, 3.0), clear)

    def _swallow(self) -> None:
        slot = self._victim("swallowed")
        if slot is None:
            return
        self.counts["black holes"] += 1
        weather = self._stage.weathers[slot]
        weather.swallow()
        seconds = self._ttl * self._dice.uniform(0.5, 3.0)
        if self._dice.random() < 0.5:
            # The clients are told that it failed, and what they sent arrives all the same, later.
            self._in(seconds / 2, weather.cut)

        def clear() -> None:
            weather.clear()
            del self._out[slot]

        self._in(seconds, clear)
