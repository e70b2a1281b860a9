"""Leases that are kept alive: one thread beats for all leases of a process, another watches the clock.

A lease is trusted only until (start of the last beat that worked + ttl - margin), by a clock that goes on while the
process or the machine sleeps. Past that its writes are refused here, before they are sent, and `lost` is set, whether
beats fail, hang, or find that somebody took over. The database refuses them too, by epoch: that is what counts, and
this spares the round trip. (M. Kleppmann, "How to do distributed locking", 2016, on fencing tokens.)
"""

import asyncio
import contextlib
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from lifecycle.errors import InvalidArgument, LeaseLost, LifecycleError, SessionBusy, StorageUnavailable
from lifecycle.incarnation import this_process
from lifecycle.log import get_logger, mask_passwords
from lifecycle.models.reads import Session
from lifecycle.operations.context import ALL, Context
from lifecycle.operations.leases import check_ttl

if TYPE_CHECKING:
    from lifecycle.manager.asynchronous import AsyncSessionManager
    from lifecycle.manager.blocking import SessionManager

log = get_logger(__name__)

DEFAULT_TTL: Final = 30.0
# Few enough that a page of PostgreSQL's has room for the new versions of those rows of it that are among them:
# the old ones go when the next batch passes.
_BATCH: Final = 1000
_RETRY: Final = 0.5
_LAST_BEAT: Final = 5.0
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
        self.trusted_until = self.next_beat = 0.0
        self.lost: Any = threading.Event()
        self.released = False
        # As it was claimed; None where the lease was taken by id.
        self.session: Session | None = None
        self._over = False
        self._on_lost: Callable[[], None] = self.lost.set
        self.renewed(began)

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
            self._on_lost()

    def renewed(self, began: float) -> None:
        """Note that a beat which began then worked. Trust that was lost does not come back."""
        if not self._over:
            self.trusted_until = began + self.ttl - margin(self.ttl)
            self.next_beat = began + self.heartbeat

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


class LeaseKeeper:
    """Keeps the leases of one manager's process alive, on a connection of its own."""

    def __init__(self, manager: "SessionManager", *, owner: bool) -> None:
        self._manager = manager
        self._owner = owner
        self._changed = threading.Condition()
        self._leases: dict[tuple[str, str, int], Lease] = {}
        self._threads: list[threading.Thread] = []
        self._stopping = False
        self._beat_at = self._watch_at = math.inf
        self.beats = 0

    def keep(self, lease: Lease) -> None:
        """Beat for a lease from now on."""
        with self._changed:
            if self._stopping:
                raise LifecycleError("this manager is closed")
            self._leases[lease.tenant, lease.session_id, lease.epoch] = lease
            if not self._threads:
                for name, run in (("beat", self._beat_on), ("watch", self._watch_on)):
                    thread = threading.Thread(target=run, name=f"lifecycle-lease-{name}", daemon=True)
                    self._threads.append(thread)
                    thread.start()
            if lease.next_beat < self._beat_at or lease.trusted_until < self._watch_at:
                self._changed.notify_all()

    def drop(self, lease: Lease) -> None:
        """Beat for it no longer."""
        with self._changed:
            self._leases.pop((lease.tenant, lease.session_id, lease.epoch), None)

    def close(self) -> None:
        """Stop beating. What is still held runs out by itself, and is not to be trusted from here on."""
        with self._changed:
            self._stopping = True
            left, self._leases = list(self._leases.values()), {}
            self._changed.notify_all()
        for lease in left:
            lease.lose("the manager was closed")
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(_LAST_BEAT)
        if self._owner:
            self._manager.close()

    def _beat_on(self) -> None:
        not_before = 0.0
        while True:
            with self._changed:
                while not self._stopping:
                    soonest = min((lease.next_beat for lease in self._leases.values()), default=math.inf)
                    self._beat_at = max(soonest, not_before)
                    if self._beat_at <= clock():
                        break
                    self._changed.wait(_until(self._beat_at))
                if self._stopping:
                    return
                now = clock()
                # All of a process's leases in one statement: those that are due soon come along.
                due = [lease for lease in self._leases.values() if lease.next_beat <= now + lease.heartbeat / 2]
            not_before = 0.0 if self._beat(due) else clock() + _RETRY

    def _beat(self, due: list[Lease]) -> bool:
        by_holder: dict[str, list[Lease]] = {}
        for lease in due:
            by_holder.setdefault(lease.holder, []).append(lease)
        worked = True
        for holder, leases in by_holder.items():
            for start in range(0, len(leases), _BATCH):
                if self._stopping:
                    return True
                worked = self._beat_batch(holder, leases[start : start + _BATCH]) and worked
        return worked

    def _beat_batch(self, holder: str, leases: list[Lease]) -> bool:
        began = clock()
        asked = [(lease.tenant, lease.session_id, lease.epoch, lease.ttl) for lease in leases]
        try:
            still = set(self._manager.renew_leases(asked, holder=holder))
        except StorageUnavailable as error:
            if not self._stopping:
                log.warning("lease_beat_failed", leases=len(leases), error=mask_passwords(str(error)))
            return False
        except Exception as error:
            log.exception("lease_beat_failed", leases=len(leases), error=mask_passwords(str(error)))
            return False
        self.beats += 1
        for lease in leases:
            if (lease.tenant, lease.session_id, lease.epoch) in still:
                lease.renewed(began)
                continue
            with self._changed:
                known = self._leases.pop((lease.tenant, lease.session_id, lease.epoch), None)
            if known is not None:  # else it was released meanwhile
                lease.lose("somebody took over, or a transition ended it")
        return True

    def _watch_on(self) -> None:
        while True:
            with self._changed:
                while not self._stopping:
                    self._watch_at = min((lease.trusted_until for lease in self._leases.values()), default=math.inf)
                    if self._watch_at <= clock():
                        break
                    self._changed.wait(_until(self._watch_at))
                if self._stopping:
                    return
                now = clock()
                over = [lease for lease in self._leases.values() if lease.trusted_until <= now]
                for lease in over:
                    del self._leases[lease.tenant, lease.session_id, lease.epoch]
            for lease in over:
                lease.lose("its time ran out")


def _until(at: float) -> float | None:
    return None if at == math.inf else max(0.0, at - clock())


def keeper_for(manager: Any) -> LeaseKeeper:
    """The keeper that a manager of either kind shares with those from its `for_tenant`."""
    driver = manager._driver  # noqa: SLF001 - built on the manager's own connections
    getattr(driver, "driver", driver).check_process()
    with _making:
        keeper: LeaseKeeper | None = getattr(driver, "lease_keeper", None)
        if keeper is None:
            keeper = driver.lease_keeper = _new_keeper(manager, driver)
        return keeper


_making = threading.Lock()


def _new_keeper(manager: Any, driver: Any) -> LeaseKeeper:
    from lifecycle.manager.blocking import SessionManager

    settings = manager.settings
    inner = getattr(driver, "driver", driver)
    if inner.dialect == "sqlite":
        # One writer at a time in this process: the beats queue with everybody else's writes.
        own = SessionManager(settings, Context(settings, ALL), inner, owner=False)
        return LeaseKeeper(own, owner=False)
    # A connection of its own, so that a busy pool does not hold the beats up.
    size = 1 if settings.database.pool_size != 1 else 2
    database = settings.database.model_copy(update={"pool_size": size})
    own = SessionManager.open(settings.model_copy(update={"database": database}), ALL)
    return LeaseKeeper(own, owner=True)


def close_keeper(driver: Any) -> None:
    """Stop the beats of a driver that is about to close."""
    with _making:
        keeper: LeaseKeeper | None = getattr(driver, "lease_keeper", None)
        driver.lease_keeper = None
    if keeper is not None:
        keeper.close()


def holder_or_own(holder: str | None) -> str:
    """The holder's id: the caller's, or this process's own."""
    return this_process() if holder is None else holder


def _pauses(wait: float) -> Iterator[float]:
    """How long to wait before each further try, in seconds: from 20 ms to half a second, with jitter."""
    deadline, pause = clock() + wait, 0.02
    while (left := deadline - clock()) > 0:
        yield min(left, pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads the tries, keeps no secret
        pause = min(0.5, pause * 1.5)


class LeaseContext:
    """What `manager.lease(...)` gives: `with` it takes the lease, and gives it back in the end."""

    def __init__(
        self, manager: "SessionManager", session_id: str, holder: str | None, ttl: float, heartbeat: float | None,
        wait: float | None,
    ) -> None:  # fmt: skip
        self._manager = manager
        self._session_id = session_id
        self._holder = holder
        self._times = check_times(ttl, heartbeat)
        self._wait = check_wait(wait)
        self._lease: Lease | None = None

    def __enter__(self) -> Lease:
        """Take the lease. Raises `SessionBusy` when somebody has it for longer than `wait`."""
        keeper = keeper_for(self._manager)
        holder = holder_or_own(self._holder)
        pauses = _pauses(self._wait)
        while True:
            began = clock()
            try:
                epoch = self._manager.acquire_lease(self._session_id, holder=holder, ttl=self._times[0])
            except SessionBusy:
                pause = next(pauses, None)
                if pause is None:
                    raise
                time.sleep(pause)
            else:
                key = (self._manager._context.tenant, self._session_id)  # noqa: SLF001 - built on the manager's own
                self._lease = Lease(key, (holder, epoch), self._times, began)
                keeper.keep(self._lease)
                return self._lease

    def __exit__(self, *_: object) -> None:
        """Give it back; one that is lost stays with who has it."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        held = lease.held
        lease.released = True
        keeper_for(self._manager).drop(lease)
        if held:
            try:
                self._manager.release_lease(lease.session_id, holder=lease.holder, epoch=lease.epoch)
            except StorageUnavailable as error:
                log.warning("lease_not_released", session_id=lease.session_id, error=mask_passwords(str(error)))


class AsyncLeaseContext:
    """`LeaseContext` for `async with`."""

    def __init__(
        self, manager: "AsyncSessionManager", session_id: str, holder: str | None, ttl: float, heartbeat: float | None,
        wait: float | None,
    ) -> None:  # fmt: skip
        self._manager = manager
        self._session_id = session_id
        self._holder = holder
        self._times = check_times(ttl, heartbeat)
        self._wait = check_wait(wait)
        self._lease: Lease | None = None

    async def __aenter__(self) -> Lease:
        """Take the lease. Raises `SessionBusy` when somebody has it for longer than `wait`."""
        keeper = await asyncio.to_thread(keeper_for, self._manager)
        holder = holder_or_own(self._holder)
        pauses = _pauses(self._wait)
        while True:
            began = clock()
            try:
                epoch = await self._manager.acquire_lease(self._session_id, holder=holder, ttl=self._times[0])
            except SessionBusy:
                pause = next(pauses, None)
                if pause is None:
                    raise
                await asyncio.sleep(pause)
            else:
                key = (self._manager._context.tenant, self._session_id)  # noqa: SLF001 - built on the manager's own
                self._lease = Lease(key, (holder, epoch), self._times, began)
                self._lease.tell(asyncio.get_running_loop())
                keeper.keep(self._lease)
                return self._lease

    async def __aexit__(self, *_: object) -> None:
        """Give it back; one that is lost stays with who has it."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        held = lease.held
        lease.released = True
        keeper_for(self._manager).drop(lease)
        if held:
            try:
                await self._manager.release_lease(lease.session_id, holder=lease.holder, epoch=lease.epoch)
            except StorageUnavailable as error:
                log.warning("lease_not_released", session_id=lease.session_id, error=mask_passwords(str(error)))


def leases_of(
    keeper: LeaseKeeper,
    claimed: Sequence[Session],
    holder: str,
    times: tuple[float, float],
    began: float,
    loop: asyncio.AbstractEventLoop | None = None,
) -> list[Lease]:
    """Live leases on sessions that were just claimed, kept alive from now on."""
    leases = []
    for session in claimed:
        lease = Lease((session.tenant, session.session_id), (holder, session.lease_epoch), times, began)
        lease.session = session
        if loop is not None:
            lease.tell(loop)
        keeper.keep(lease)
        leases.append(lease)
    return leases


def check_wait(wait: Any) -> float:
    """How long to wait for a lease, in seconds; not at all for None."""
    if wait is None:
        return 0.0
    if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait < math.inf:
        raise InvalidArgument(f"wait must be seconds, 0 or more, or None not to wait; not {wait!r}")
    return float(wait)
