"""Token buckets in this process: how many requests, or failures, one sender may have."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable


class Buckets:
    """A bucket for each sender: `burst` at once, then `rate` a second. Those used longest ago are forgotten.

    A forgotten sender's bucket is full again; `most` bounds the memory, whoever sends from however many addresses.
    """

    def __init__(
        self, rate: float, burst: int, *, most: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate = rate
        self.burst = burst
        self._most = most
        self._clock = clock
        self._left: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def wait(self, sender: Hashable) -> float:
        """The seconds after which there is one in the sender's bucket, 0 if there is one now. Nothing is taken."""
        return max(0.0, (1 - self._in(sender, self._clock())) / self.rate)

    def take(self, sender: Hashable) -> float:
        """Take one from the sender's bucket: 0, or the seconds after which there is one, with nothing taken."""
        now = self._clock()
        left = self._in(sender, now)
        wait = max(0.0, (1 - left) / self.rate)
        self._left[sender] = (left if wait else left - 1, now)
        self._left.move_to_end(sender)
        while len(self._left) > self._most:
            self._left.popitem(last=False)
        return wait

    def __len__(self) -> int:
        """How many senders are remembered."""
        return len(self._left)

    def _in(self, sender: Hashable, now: float) -> float:
        """How much is in a sender's bucket."""
        left, at = self._left.get(sender, (float(self.burst), now))
        return min(float(self.burst), left + (now - at) * self.rate)
