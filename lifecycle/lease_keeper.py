"""Keeping leases alive: one thread beats for all leases of a process, another watches the clock."""

import math
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from lifecycle.errors import LifecycleError, StorageUnavailable
from lifecycle.lease import Lease, clock
from lifecycle.log import get_logger, mask_passwords
from lifecycle.operations.context import ALL, Context

if TYPE_CHECKING:
    from lifecycle.manager.blocking import SessionManager

log = get_logger(__name__)

# Few enough that a page of PostgreSQL's has room for the new versions of those rows of it that are among them:
# the old ones go when the next batch passes.
_BATCH: Final = 1000
_RETRY: Final = 0.5
_LAST_BEAT: Final = 5.0


_keepers: "weakref.WeakSet[LeaseKeeper]" = weakref.WeakSet()


def leases_held() -> int:
    """How many leases the managers of this process keep alive."""
    return sum(keeper.held for keeper in list(_keepers))


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
        _keepers.add(self)

    @property
    def held(self) -> int:
        """How many leases it keeps alive."""
        return len(self._leases)

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
