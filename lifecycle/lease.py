"""A lease on a session, as its holder knows it.

It is trusted only until (start of the last beat that worked + ttl - margin), by a clock that goes on while the process
or the machine sleeps. Past that its writes are refused here, before they are sent, and `lost` is set, whether beats
fail, hang, or find that somebody took over. The database refuses them too, by epoch: that is what counts, and this
spares the round trip. (M. Kleppmann, "How to do distributed locking", 2016, on fencing tokens.)
"""

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from lifecycle import observing
from lifecycle.errors import InvalidArgument, LeaseLost
from lifecycle.incarnation import this_process
from lifecycle.log import get_logger
from lifecycle.models.reads import Session
from lifecycle.operations.leases import check_ttl

log = get_logger(__name__)

# CLOCK_BOOTTIME counts the time a suspended machine sleeps; CLOCK_MONOTONIC does not.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def clock() -> float:
    """Seconds on a clock that never stands still and never jumps."""
    return time.clock_gettime(_CLOCK)


def check_times(ttl: float, heartbeat: Any) -> tuple[float, float]:
    """A lease's time to live and the time between its beats, in seconds; a third of it unless told otherwise."""
    ttl = check_ttl(ttl)
    if heartbeat is None:
        return ttl, ttl / 3
    if isinstance(heartbeat, bool) or not isinstance(heartbeat, int | float) or not 0 < heartbeat <= ttl / 3:
        raise InvalidArgument(
            f"heartbeat must be more than 0 and at most a third of ttl ({ttl / 3:g} seconds), so that one lost beat"
            f" does not lose the lease; not {heartbeat!r}"
        )
    return ttl, float(heartbeat)


class Lease:
    """A live lease on a session: pass it to writes as `lease=`.

    `lost` is set once it must not be relied on any more, and handlers may wait on it: a `threading.Event`, or an
    `asyncio.Event` from an async manager.
    """

    def __init__(self, key: tuple[str, str], fence: tuple[str, int], times: tuple[float, float], began: float) -> None:
        self.tenant, self.session_id = key
        self.holder, self.epoch = fence
        self.ttl, self.heartbeat = times
        self.trusted_until, self.next_beat = self._times(began)
        self.lost: Any = threading.Event()
        self.released = False
        # As it was claimed; None where the lease was taken by id.
        self.session: Session | None = None
        self._over = False
        self._on_lost: Callable[[], None] = self.lost.set

    @property
    def held(self) -> bool:
        """Whether it can be relied on now."""
        return not self._over and not self.released and clock() < self.trusted_until

    def fence(self) -> tuple[str, int]:
        """Holder and epoch, for a write's condition. Raises `LeaseLost` when the lease can no longer be trusted."""
        if self.held:
            return self.holder, self.epoch
        if not self.released:
            self.lose("its time ran out")
        raise LeaseLost(self.session_id, self.epoch)

    def lose(self, why: str) -> None:
        """Give up trust, for good."""
        if not self._over and not self.released:
            self._over = True
            log.warning("lease_lost", session_id=self.session_id, epoch=self.epoch, holder=self.holder, why=why)
            for observer in observing.OBSERVERS:
                observer.lease_lost(why)
            self._on_lost()

    def renewed(self, began: float) -> None:
        """Note that a beat which began then worked. Trust that has run out does not come back."""
        # A process that was stopped may beat before anything of it has looked at the clock.
        if clock() >= self.trusted_until:
            self.lose("its time ran out")
        if not self._over:
            self.trusted_until, self.next_beat = self._times(began)

    def _times(self, began: float) -> tuple[float, float]:
        return began + self.ttl - margin(self.ttl), began + self.heartbeat

    def tell(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make `lost` an event of this loop."""
        lost = self.lost = asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(lost.set)

        self._on_lost = tell


def margin(ttl: float) -> float:
    """How long before its end a lease is no longer trusted: for clocks that run apart, and a write's way."""
    return min(1.0, ttl / 10)


def holder_or_own(holder: str | None) -> str:
    """The holder's id: the caller's, or this process's own."""
    return this_process() if holder is None else holder


def check_wait(wait: Any) -> float:
    """How long to wait for a lease, in seconds; not at all for None."""
    if wait is None:
        return 0.0
    if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait < math.inf:
        raise InvalidArgument(f"wait must be seconds, 0 or more, or None not to wait; not {wait!r}")
    return float(wait)
