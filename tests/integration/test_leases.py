"""One holder at a time, and nothing written by one who lost his lease: on every store, sync and async."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lifecycle import (
    InvalidArgument,
    InvalidTransition,
    LeaseLost,
    SessionBusy,
    SessionManager,
    SessionNotFound,
    Settings,
)
from lifecycle.lease import clock
from lifecycle.lease_keeper import keeper_for
from lifecycle.models import tables as t
from tests.managers import backdate
from tests.wire import CountingProxy

PATIENCE = 30.0


def until(condition: Callable[[], Any]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


WRITES: dict[str, Callable[[Any, Any], Any]] = {
    "save_state": lambda manager, lease: manager.save_state("s", step=9, lease=lease),
    "add_message": lambda manager, lease: manager.add_message("s", "user", "late", lease=lease),
    "add_messages": lambda manager, lease: manager.add_messages(
        "s", [{"role": "user", "content": "x"}] * 2, lease=lease
    ),
    "repeated message": lambda manager, lease: manager.add_messages(
        "s", [{"role": "user", "content": "one", "message_id": "m"}, {"role": "user", "content": "new"}], lease=lease
    ),
    "pop_message": lambda manager, lease: manager.pop_message("s", lease=lease),
    "delete_message": lambda manager, lease: manager.delete_message("s", "m", lease=lease),
    "checkpoint": lambda manager, lease: manager.checkpoint("s", "late", lease=lease),
    "restore_checkpoint": lambda manager, lease: manager.restore_checkpoint("s", 3, lease=lease),
}
MOVES: dict[str, Callable[[Any, Any], Any]] = {
    "suspend": lambda manager, lease: manager.suspend_session("s", lease=lease),
    "no transition at all": lambda manager, lease: manager.resume_session("s", lease=lease),
    "complete": lambda manager, lease: manager.complete_session("s", lease=lease),
    "request_approval": lambda manager, lease: manager.request_approval("s", "deploy", suspend=True, lease=lease),
}


def prepare(manager: Any) -> None:
    """A session with a saved state, a message and a checkpoint."""
    manager.create_session(session_id="s", context={"a": 1})
    manager.add_message("s", "user", "one", message_id="m")
    assert manager.checkpoint("s", "first").seq == 3


def everything(manager: Any) -> tuple[Any, ...]:
    """What a write might have changed."""
    session = manager.get_session("s")
    return (
        session.state, session.version, session.message_count, session.pending_approvals, manager.load_state("s"),
        manager.get_messages("s"), manager.list_checkpoints("s"), manager.history("s"),
    )  # fmt: skip


def test_a_lease_keeps_others_out(manager: Any) -> None:
    """Writes without it are refused with the holder's name, writes with it are made; afterwards anybody may write."""
    prepare(manager)
    with manager.lease("s", holder="me") as lease:
        before = everything(manager)
        for write in WRITES.values():
            with pytest.raises(SessionBusy) as caught:
                write(manager, None)
            assert caught.value.holder == "me"
            assert caught.value.until is not None
        assert everything(manager) == before
        with pytest.raises(SessionBusy), manager.lease("s"):
            raise AssertionError("two holders")
        for write in WRITES.values():
            write(manager, lease)
        manager.suspend_session("s", lease=lease)
        manager.resume_session("s", lease=lease)
        assert lease.held
        with pytest.raises(SessionBusy):
            manager.delete_session("s")
    assert not lease.held
    with pytest.raises(LeaseLost):
        manager.save_state("s", step=1, lease=lease)
    manager.save_state("s", step=1)
    with manager.lease("s") as second:
        assert second.epoch == lease.epoch + 1


@pytest.mark.parametrize("name", [*WRITES, *MOVES])
def test_a_write_of_a_former_holder_never_lands(manager: Any, migrated_url: str, name: str) -> None:
    """However late it comes: the epoch is checked in the write's own statement, before anything else is."""
    prepare(manager)
    with manager.lease("s", holder="old") as old:
        backdate(migrated_url, t.sessions, lease_expires_at=datetime.now(UTC) - timedelta(minutes=1))
        with manager.lease("s", holder="new") as new:
            assert new.epoch == old.epoch + 1
            before = everything(manager)
            with pytest.raises(LeaseLost) as caught:
                (WRITES | MOVES)[name](manager, old)
            assert caught.value.epoch == old.epoch
            assert everything(manager) == before
            manager.save_state("s", step=2, lease=new)


def test_an_operators_transition_takes_the_lease_away(manager: Any) -> None:
    """It is allowed, it bumps the epoch, and the holder is told: at its next write, and at its next beat."""
    prepare(manager)
    with manager.lease("s", ttl=3, heartbeat=0.05) as lease:
        manager.suspend_session("s", actor="operator")
        with pytest.raises(LeaseLost):
            manager.add_message("s", "user", "late", lease=lease)
        until(lease.lost.is_set)
    assert manager.get_session("s").lease_epoch == lease.epoch + 1


def test_finishing_under_a_lease_gives_it_back(manager: Any) -> None:
    """And doing it again, after an answer that got lost, changes nothing."""
    prepare(manager)
    with manager.lease("s") as lease:
        assert manager.complete_session("s", lease=lease).lease_holder is None
        assert manager.complete_session("s", lease=lease).state == "completed"
        with pytest.raises(LeaseLost):
            manager.save_state("s", step=1, lease=lease)


def test_beats_keep_a_lease_alive(manager: Any) -> None:
    """For far longer than its time to live."""
    manager.create_session(session_id="s")
    with manager.lease("s", ttl=0.6, heartbeat=0.05) as lease:
        end = clock() + 1.5
        until(lambda: clock() > end)
        assert lease.held
        manager.save_state("s", step=1, lease=lease)
        row = manager.get_session("s")
        assert (row.lease_holder, row.lease_epoch) == (lease.holder, lease.epoch)


def test_waiting_for_a_lease(manager: Any) -> None:
    """`wait` tries until it is free, and gives up with SessionBusy."""
    manager.create_session(session_id="s")
    with manager.lease("s", holder="first"):
        with pytest.raises(SessionBusy) as caught, manager.lease("s", wait=0.2):
            raise AssertionError("two holders")
        assert caught.value.holder == "first"
        taken = threading.Event()

        def second() -> None:
            with manager.lease("s", holder="second", wait=PATIENCE):
                taken.set()

        thread = threading.Thread(target=second)
        thread.start()
        assert not taken.wait(0.2)
    assert taken.wait(PATIENCE)
    thread.join()


@pytest.mark.parametrize(
    "bad",
    [{"ttl": 0}, {"ttl": "30"}, {"ttl": 10**9}, {"ttl": 9, "heartbeat": 3.1}, {"heartbeat": 0}, {"wait": -1}],
    ids=str,
)
def test_times_that_cannot_work_are_refused(manager: Any, bad: dict[str, Any]) -> None:
    """Before anything is asked of the database; a heartbeat may be a third of ttl at most."""
    with pytest.raises(InvalidArgument, match=next(iter(reversed(bad)))):
        manager.lease("s", **bad)


def test_what_can_be_leased(manager: Any) -> None:
    """Live sessions can, suspended ones too; others say why not. A lease is of one session."""
    with pytest.raises(SessionNotFound), manager.lease("nobody"):
        pass
    for name in ("s", "other"):
        manager.create_session(session_id=name)
    manager.suspend_session("s")
    with manager.lease("s") as lease:
        with pytest.raises(InvalidArgument, match="'s'"):
            manager.save_state("other", step=1, lease=lease)
        with pytest.raises(InvalidArgument, match="tuple"):
            manager.save_state("other", step=1, lease=("me", 1))
    manager.end_session("s")
    with pytest.raises(InvalidTransition), manager.lease("s"):
        pass


def test_sweeps_pass_over_what_is_leased(manager: Any, migrated_url: str) -> None:
    """Due or not; and a beat pushes the deadline, so that the work of a crashed holder is not expired for it."""
    manager.create_session(session_id="s", idle_timeout=60)
    with manager.lease("s", ttl=30, heartbeat=0.05):
        past = datetime.now(UTC) - timedelta(days=1)
        backdate(migrated_url, t.sessions, expires_at=past, ghost_at=past)
        assert manager.expire_idle().count == 0
        assert manager.delete_ghosts().count == 0
        assert manager.prune_sessions(older_than="1s", states=["active"]).count == 0
        until(lambda: manager.get_session("s").expires_at > datetime.now(UTC))


def test_two_holders_never_meet(migrated_url: str) -> None:
    """Eight threads read, add one and write under a lease each: nothing is lost without a version to compare."""
    rounds, workers = 6, 8
    with SessionManager.open(migrated_url) as manager:
        manager.create_session(session_id="s", context={"n": 0})

        def work(name: str) -> None:
            for _ in range(rounds):
                with manager.lease("s", holder=name, wait=PATIENCE * 2) as lease:
                    state = manager.load_state("s")
                    assert state is not None
                    manager.save_state("s", context={"n": state.context["n"] + 1}, lease=lease)

        threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        state = manager.load_state("s")
        assert state is not None
        assert state.context == {"n": rounds * workers}
        session = manager.get_session("s")
        assert session is not None
        assert session.lease_epoch == rounds * workers


def test_all_leases_of_a_process_beat_in_one_statement(migrated_postgres_url: str) -> None:
    """A hundred leases, one round trip for each beat."""
    with CountingProxy(migrated_postgres_url) as proxy, SessionManager.open(proxy.settings) as manager:
        contexts = []
        for i in range(100):
            manager.create_session(session_id=f"s{i}")
            contexts.append(manager.lease(f"s{i}", ttl=30, heartbeat=0.3))
        leases = [context.__enter__() for context in contexts]
        keeper = keeper_for(manager)
        until(lambda: keeper.beats >= 2)  # the connection is there, the statement prepared, the beats together
        beats, trips = keeper.beats, proxy.round_trips
        until(lambda: keeper.beats >= beats + 4)
        assert proxy.round_trips - trips <= keeper.beats - beats + 1
        assert all(lease.held for lease in leases)
        for context in contexts:
            context.__exit__(None, None, None)


def test_a_lease_ends_with_its_manager(migrated_url: str) -> None:
    """Nothing beats any more, and it is not to be trusted."""
    with SessionManager.open(Settings(database={"url": migrated_url})) as manager:
        manager.create_session(session_id="s")
        lease = manager.lease("s").__enter__()
    assert lease.lost.is_set()
    with pytest.raises(LeaseLost):
        lease.fence()
