"""What a holder believes of its own lease."""

import pytest

from lifecycle import LeaseLost
from lifecycle.lease import Lease, clock

TTL = 30.0


def lease_begun(ago: float) -> Lease:
    """A lease taken so many seconds ago."""
    return Lease(("t", "s"), ("me", 1), (TTL, TTL / 3), clock() - ago)


def test_trust_ends_before_the_lease_does() -> None:
    """By a margin, from the start of the request: a live one is trusted, one near its end is not."""
    assert lease_begun(0).fence() == ("me", 1)
    assert not lease_begun(TTL - 0.5).held


def test_a_beat_prolongs_trust() -> None:
    """From the time at which it began."""
    lease = lease_begun(20)
    before = lease.trusted_until
    lease.renewed(clock() - 5)
    assert lease.held
    assert lease.trusted_until == pytest.approx(before + 15, abs=1)


def test_trust_that_ran_out_does_not_come_back() -> None:
    """A process that was stopped may beat before it looks at the clock: nobody took over, and it is lost all the same."""
    lease = lease_begun(TTL + 1)
    assert not lease.lost.is_set()
    lease.renewed(clock())
    assert lease.lost.is_set()
    assert not lease.held
    with pytest.raises(LeaseLost):
        lease.fence()
