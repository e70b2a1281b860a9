"""What a write may be news of, and who waits for it: watches, those who wait for a lease, runners.

Whoever waits polls; that is the guarantee. News only makes him look sooner.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from lifecycle.operations import requests as r

# A line of the audit log was committed; a session waits for a runner; some leases were freed.
LOG: Final = "log"
WORK: Final = "work"
ANY_LEASE: Final = "lease"


class Bell(Protocol):
    """Tells of news, in this process and in others."""

    def ring(self, news: tuple[str, ...]) -> None:
        """Tell of news, soon, without waiting."""

    def listen(self, topic: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called from another thread at news of a topic, until what is returned is called."""


@contextmanager
def hearing(driver: Any, topic: str, wake: Callable[[], None]) -> Iterator[None]:
    """Have `wake` called at news of a topic, where the driver has a bell."""
    bell: Bell | None = getattr(driver, "bell", None)
    if bell is None:
        yield
        return
    end = bell.listen(topic, wake)
    try:
        yield
    finally:
        end()


def lease_of(tenant: str, session_id: str) -> str:
    """The topic of one session's lease. Two may share one: that costs a look."""
    key = f"{tenant}\x00{session_id}".encode()
    return f"{ANY_LEASE}:{zlib.crc32(key):x}"


def news_of(request: Any) -> tuple[str, ...]:
    """What a request is news of once it is committed."""
    tell = _NEWS.get(type(request))
    return () if tell is None else tell(request)


def _log(_request: Any) -> tuple[str, ...]:
    return (LOG,)


def _created(request: r.CreateSession) -> tuple[str, ...]:
    return (LOG,) if request.values.get("available_at") is None else (LOG, WORK)


def _moved(request: r.Move) -> tuple[str, ...]:
    topics = (LOG, WORK) if request.trigger in {"resume", "reopen"} else (LOG,)
    return topics if request.fence is None else (*topics, lease_of(request.tenant, request.session_id))


def _updated(request: r.UpdateSession) -> tuple[str, ...]:
    return () if request.values.get("available_at") is None else (WORK,)


def _released(request: r.ReleaseLease) -> tuple[str, ...]:
    freed = lease_of(request.tenant, request.session_id)
    return (freed,) if request.retry_in is None else (WORK, freed)


def _asked(request: r.RequestApproval) -> tuple[str, ...]:
    if not request.suspend:
        return ()
    return (LOG,) if request.fence is None else (LOG, lease_of(request.tenant, request.session_id))


def _resolved(_request: r.ResolveApproval) -> tuple[str, ...]:
    return (LOG, WORK)


def _together(request: r.Together | r.SideBySide) -> tuple[str, ...]:
    return tuple(dict.fromkeys(topic for one in request.requests for topic in news_of(one)))


# What is not here is news to nobody: a save, a message, a beat.
_NEWS: Final[dict[type[Any], Callable[[Any], tuple[str, ...]]]] = {
    r.CreateSession: _created,
    r.CreateSessions: _log,
    r.ForkSession: _log,
    r.Together: _together,
    r.SideBySide: _together,
    r.Move: _moved,
    r.UpdateSession: _updated,
    r.SoftDelete: _log,
    r.DeleteSessions: _log,
    r.SweepBatch: _log,
    r.ReleaseLease: _released,
    r.RequestApproval: _asked,
    r.ResolveApproval: _resolved,
}
