"""Taking leases: by id, for the length of a `with`, and those of sessions that were claimed."""

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from lifecycle.errors import SessionBusy, StorageUnavailable
from lifecycle.lease import Lease, check_times, check_wait, clock, holder_or_own
from lifecycle.lease_keeper import LeaseKeeper, keeper_for
from lifecycle.log import get_logger, mask_passwords
from lifecycle.models.reads import Session
from lifecycle.news import hearing, lease_of

log = get_logger(__name__)


def _pauses(wait: float) -> Iterator[float]:
    """How long to wait before each further try, in seconds: from 20 ms to half a second, with jitter."""
    deadline, pause = clock() + wait, 0.02
    while (left := deadline - clock()) > 0:
        yield min(left, pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads the tries, keeps no secret
        pause = min(0.5, pause * 1.5)


class _Context:
    """What both kinds of context know; they differ in what they await."""

    def __init__(
        self, manager: Any, session_id: str, holder: str | None, ttl: float, heartbeat: float | None, wait: float | None
    ) -> None:
        self._manager = manager
        self._session_id = session_id
        self._holder = holder_or_own(holder)
        self._times = check_times(ttl, heartbeat)
        self._wait = check_wait(wait)
        self._lease: Lease | None = None

    def _took(
        self, keeper: LeaseKeeper, epoch: int, began: float, loop: asyncio.AbstractEventLoop | None = None
    ) -> Lease:
        key = (self._manager._context.tenant, self._session_id)  # noqa: SLF001 - built on the manager's own
        self._lease = Lease(key, (self._holder, epoch), self._times, began)
        if loop is not None:
            self._lease.tell(loop)
        keeper.keep(self._lease)
        return self._lease

    def _hearing(self, wake: Callable[[], None]) -> AbstractContextManager[None]:
        context = self._manager._context  # noqa: SLF001 - as above
        return hearing(self._manager._driver, lease_of(context.tenant, self._session_id), wake)  # noqa: SLF001

    def _left(self) -> dict[str, Any] | None:
        """Beat no longer; what the database is to be told, where the lease is still ours to give back."""
        lease, self._lease = self._lease, None
        if lease is None:
            return None
        held, lease.released = lease.held, True
        keeper_for(self._manager).drop(lease)
        return {"session_id": lease.session_id, "holder": lease.holder, "epoch": lease.epoch} if held else None


class LeaseContext(_Context):
    """What `manager.lease(...)` gives: `with` it takes the lease, and gives it back in the end."""

    def __enter__(self) -> Lease:
        """Take the lease. Raises `SessionBusy` when somebody has it for longer than `wait`."""
        keeper = keeper_for(self._manager)
        try:
            return self._try(keeper)
        except SessionBusy as error:
            if not self._wait:
                raise
            busy = error
        freed = threading.Event()
        with self._hearing(freed.set):
            for pause in _pauses(self._wait):
                freed.wait(pause)
                freed.clear()
                try:
                    return self._try(keeper)
                except SessionBusy as error:
                    busy = error
        raise busy

    def _try(self, keeper: LeaseKeeper) -> Lease:
        began = clock()
        epoch = self._manager.acquire_lease(self._session_id, holder=self._holder, ttl=self._times[0])
        return self._took(keeper, epoch, began)

    def __exit__(self, *_: object) -> None:
        """Give it back; one that is lost stays with who has it."""
        ours = self._left()
        if ours is not None:
            try:
                self._manager.release_lease(**ours)
            except StorageUnavailable as error:
                log.warning("lease_not_released", **ours, error=mask_passwords(str(error)))


class AsyncLeaseContext(_Context):
    """`LeaseContext` for `async with`."""

    async def __aenter__(self) -> Lease:
        """Take the lease. Raises `SessionBusy` when somebody has it for longer than `wait`."""
        keeper = await asyncio.to_thread(keeper_for, self._manager)
        try:
            return await self._try(keeper)
        except SessionBusy as error:
            if not self._wait:
                raise
            busy = error
        freed, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(freed.set)

        with self._hearing(wake):
            for pause in _pauses(self._wait):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await freed.wait()
                freed.clear()
                try:
                    return await self._try(keeper)
                except SessionBusy as error:
                    busy = error
        raise busy

    async def _try(self, keeper: LeaseKeeper) -> Lease:
        began = clock()
        epoch = await self._manager.acquire_lease(self._session_id, holder=self._holder, ttl=self._times[0])
        return self._took(keeper, epoch, began, asyncio.get_running_loop())

    async def __aexit__(self, *_: object) -> None:
        """Give it back; one that is lost stays with who has it."""
        ours = self._left()
        if ours is not None:
            try:
                await self._manager.release_lease(**ours)
            except StorageUnavailable as error:
                log.warning("lease_not_released", **ours, error=mask_passwords(str(error)))


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
