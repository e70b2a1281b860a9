"""The runner: what it claims, what comes of it, and in whose turn."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lifecycle import ALL, InvalidArgument, SessionManager, SessionRunner
from lifecycle.models import tables as t
from lifecycle.run import AsyncRun, Run
from tests.managers import backdate


@pytest.fixture
def manager(migrated_url: str) -> Iterator[SessionManager]:
    """A manager beside the runners."""
    with SessionManager.open(migrated_url) as opened:
        yield opened


@pytest.fixture
def runner(migrated_url: str) -> Iterator[SessionRunner]:
    """A runner with short times."""
    with SessionRunner(migrated_url, ttl=3, poll=0.02) as made:
        yield made


def now() -> datetime:
    """The time, a moment ago: a database's clock may be a little behind ours."""
    return datetime.now(UTC) - timedelta(seconds=1)


def state_of(manager: SessionManager, session_id: str) -> tuple[str, str | None]:
    """State and reason."""
    session = manager.get_session(session_id)
    assert session is not None
    return session.state, session.reason


def test_handlers_run_what_is_available(manager: SessionManager, runner: SessionRunner) -> None:
    """Sync and async ones; a handler that returns completes its session, and an idle chat is never claimed."""

    @runner.handler("sync")
    def work(run: Run) -> None:
        assert (run.state, run.step) == (None, 0)
        assert run.save(step=1, context={"by": "sync"}) == 2
        assert run.step == 1
        run.add_message("assistant", "done")

    @runner.handler("async")
    async def work_async(run: AsyncRun) -> None:
        await run.save(step=1, append=[1])
        await run.save(step=2, append=[2])
        assert run.state is not None
        assert run.state.conversation == [1, 2]
        await run.add_message("assistant", "done")
        await run.checkpoint("end")

    for kind in ("sync", "async"):
        manager.create_session(session_id=f"{kind} now", kind=kind, available_at=now())
        manager.create_session(session_id=f"{kind} chat", kind=kind)
        manager.create_session(session_id=f"{kind} later", kind=kind, available_at=now() + timedelta(hours=1))
    manager.create_session(session_id="other", kind="other", available_at=now())
    stopped = threading.Thread(target=runner.run)
    stopped.start()
    wait(lambda: state_of(manager, "sync now")[0] == state_of(manager, "async now")[0] == "completed")
    runner.stop()
    stopped.join()
    for kind in ("sync", "async"):
        assert manager.get_messages(f"{kind} now")[0].content == "done"
        for rest in ("chat", "later"):
            session = manager.get_session(f"{kind} {rest}")
            assert session is not None
            assert (session.state, session.lease_epoch) == ("active", 0)
    assert state_of(manager, "other")[0] == "active"


def test_a_failing_handler_is_tried_again_and_then_ends(manager: SessionManager, runner: SessionRunner) -> None:
    """From its last save, a bounded number of times without progress; the reason stands in the session."""
    tries: list[int] = []

    @runner.handler("flaky", max_attempts=3, backoff=0.01)
    def flaky(run: Run) -> None:
        tries.append(run.step)
        if run.step < 2:
            run.save(step=run.step + 1)
        raise ValueError("out of luck")

    manager.create_session(session_id="s", kind="flaky", available_at=now())
    assert runner.run(until_idle=True)
    state, reason = state_of(manager, "s")
    assert state == "ended"
    assert "ValueError: out of luck" in str(reason)
    assert tries[:3] == [0, 1, 2]
    assert len(tries) <= 6


def test_a_suspended_run_goes_on_when_it_is_resumed(manager: SessionManager, runner: SessionRunner) -> None:
    """It is claimed by nobody meanwhile; an approval suspends and its decision resumes."""

    @runner.handler("human")
    def work(run: Run) -> None:
        if run.step == 0:
            run.save(step=1)
            run.suspend("waits for its user")
        elif run.step == 1:
            run.save(step=2)
            run.request_approval("deploy", approval_id="ok")
        else:
            run.complete("approved")

    manager.create_session(session_id="s", kind="human", available_at=now())
    assert runner.run(until_idle=True)
    assert state_of(manager, "s") == ("suspended", "waits for its user")
    session = manager.get_session("s")
    assert session is not None
    assert (session.lease_holder, session.available_at) == (None, None)
    manager.resume_session("s")
    with SessionRunner(runner.manager.settings, poll=0.02) as second:
        second.handlers = runner.handlers
        assert second.run(until_idle=True)
        assert state_of(manager, "s")[0] == "suspended"
        manager.resolve_approval("s", "ok", True, by="ann")
        assert second.run(until_idle=True)
    assert state_of(manager, "s") == ("completed", "approved")


def die(manager: SessionManager, url: str, session_id: str) -> None:
    """Leave a session as a runner that was killed does, its lease run out."""
    (lease,) = manager.claim(["poor"], holder="the dead", limit=1)
    assert lease.session_id == session_id
    lease.released = True
    backdate(url, t.sessions, lease_expires_at=now() - timedelta(seconds=1))


@pytest.mark.parametrize(("rescue", "left"), [("resume", "completed"), ("suspend", "suspended"), ("end", "ended")])
def test_what_a_dead_process_left_is_taken_over(
    manager: SessionManager, runner: SessionRunner, migrated_url: str, rescue: Any, left: str
) -> None:
    """As the kind's policy says: gone on with, put aside, or ended."""
    calls: list[int] = []

    @runner.handler("poor", rescue=rescue)
    def poor(run: Run) -> None:
        calls.append(run.session.rescues)

    manager.create_session(session_id="s", kind="poor", available_at=now())
    die(manager, migrated_url, "s")
    assert runner.run(until_idle=True)
    assert state_of(manager, "s")[0] == left
    assert calls == ([1] if rescue == "resume" else [])


def test_a_session_that_kills_its_processes_is_ended(
    manager: SessionManager, runner: SessionRunner, migrated_url: str
) -> None:
    """After so many rescues without progress; one that got on is counted anew."""

    @runner.handler("poor", max_rescues=2)
    def poor(run: Run) -> None:
        raise AssertionError(run)

    manager.create_session(session_id="s", kind="poor", available_at=now())
    die(manager, migrated_url, "s")
    die(manager, migrated_url, "s")
    manager.save_state("s", step=1)
    for _ in range(3):
        die(manager, migrated_url, "s")
    session = manager.get_session("s")
    assert session is not None
    assert session.rescues == 3
    die(manager, migrated_url, "s")
    assert runner.run(until_idle=True)
    state, reason = state_of(manager, "s")
    assert state == "ended"
    assert "without progress" in str(reason)


def test_a_held_session_is_not_claimed(manager: SessionManager, migrated_url: str) -> None:
    """Neither one that a living holder has, nor one that somebody leased by id and left."""
    manager.create_session(session_id="s", kind="poor", available_at=now())
    with manager.lease("s"):
        assert manager.claim(["poor"]) == []
    manager.create_session(session_id="chat", kind="poor")
    manager.acquire_lease("chat", holder="gone", ttl=1)
    backdate(migrated_url, t.sessions, lease_expires_at=now() - timedelta(seconds=1))
    assert [lease.session_id for lease in manager.claim(["poor"], limit=10)] == ["s"]


def test_a_living_workers_leases_are_left_to_it(manager: SessionManager, migrated_url: str) -> None:
    """While its sign of life is fresh nobody looks at its leases, run out or not; then they are taken."""
    manager.create_session(session_id="s", kind="poor", available_at=now())
    die(manager, migrated_url, "s")
    manager.beat_worker("the dead", host="h", pid=1, release="0")
    assert manager.claim(["poor"]) == []
    backdate(migrated_url, t.workers, beat_at=now() - timedelta(minutes=1))
    assert [lease.session_id for lease in manager.claim(["poor"])] == ["s"]


def test_tenants_take_turns(migrated_url: str) -> None:
    """One with many sessions does not keep the others waiting."""
    with SessionManager.open(migrated_url, tenant=ALL) as everybody:
        for i in range(20):
            everybody.for_tenant("big").create_session(session_id=f"b{i}", available_at=now())
        everybody.for_tenant("small").create_session(session_id="s", available_at=now())
        claimed = everybody.claim(["chat"], limit=4)
        assert {lease.tenant for lease in claimed} == {"big", "small"}
        assert len(claimed) == 4
        alone = everybody.for_tenant("small").claim(["chat"], limit=4)
        assert alone == []


def test_two_claimants_never_get_the_same(migrated_url: str) -> None:
    """Eight threads claim a hundred sessions: each is claimed once."""
    with SessionManager.open(migrated_url) as manager:
        for i in range(100):
            manager.create_session(session_id=f"s{i:03}", available_at=now())
        got: list[str] = []

        def claim(name: str) -> None:
            while leases := manager.claim(["chat"], holder=name, limit=7):
                got.extend(lease.session_id for lease in leases)

        threads = [threading.Thread(target=claim, args=(f"w{i}",)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got) == [f"s{i:03}" for i in range(100)]


def test_stopping_hands_over_at_the_next_save(manager: SessionManager, runner: SessionRunner) -> None:
    """The save is made, the lease given back, and another goes on at once; the try does not count."""
    started, saved = threading.Event(), threading.Event()

    @runner.handler("long")
    def work(run: Run) -> None:
        for step in range(run.step + 1, 1000):
            started.set()
            run.save(step=step)
            saved.set()
            saved.wait()

    manager.create_session(session_id="s", kind="long", available_at=now())
    thread = threading.Thread(target=runner.run)
    thread.start()
    assert started.wait(30)
    runner.stop()
    thread.join()
    session = manager.get_session("s")
    assert session is not None
    assert session.state == "active"
    assert (session.lease_holder, session.attempts) == (None, 0)
    assert session.available_at is not None
    assert [lease.session_id for lease in manager.claim(["long"])] == ["s"]


@pytest.mark.parametrize(
    "bad", [{"concurrency": 0}, {"poll": 0}, {"ttl": 9, "heartbeat": 5}, {"drain_timeout": "1"}], ids=str
)
def test_options_that_cannot_work_are_refused(migrated_sqlite_url: str, bad: dict[str, Any]) -> None:
    """With the name of what is wrong."""
    with pytest.raises(InvalidArgument, match=next(reversed(bad))):
        SessionRunner(migrated_sqlite_url, **bad)
    with SessionRunner(migrated_sqlite_url) as runner:
        with pytest.raises(InvalidArgument, match="no handlers"):
            runner.run()
        runner.handler("a")(print)
        with pytest.raises(InvalidArgument, match="already"):
            runner.handler("a")
        with pytest.raises(InvalidArgument, match="rescue"):
            runner.handler("b", rescue="panic")  # type: ignore[arg-type]


def test_a_claim_whose_answer_was_lost_is_let_go(manager: SessionManager, migrated_url: str) -> None:
    """A living runner's leases are looked at by nobody else: it finds what no handler works on, and hands it back."""
    with SessionRunner(migrated_url, ttl=0.9, poll=0.02) as runner:

        @runner.handler("poor")
        def poor(run: Run) -> None:
            run.save(step=1)

        manager.create_session(session_id="s", kind="poor", available_at=now())
        manager.claim_sessions(["poor"], holder=runner.holder, ttl=0.9)
        runner._adrift.set()
        thread = threading.Thread(target=runner.run)
        thread.start()
        wait(lambda: state_of(manager, "s")[0] == "completed")
        runner.stop()
        thread.join()


def test_a_run_whose_lease_was_lost_is_taken_up_again(manager: SessionManager, runner: SessionRunner) -> None:
    """By the same runner, which lives on and gives signs of life."""
    tries: list[int] = []

    @runner.handler("poor")
    def poor(run: Run) -> None:
        tries.append(run.lease.epoch)
        if len(tries) == 1:
            run.lease.lose("as if this process had been asleep")
        run.save(step=1)

    manager.create_session(session_id="s", kind="poor", available_at=now())
    assert runner.run(until_idle=True)
    assert state_of(manager, "s")[0] == "completed"
    assert tries == [1, 2]


def wait(condition: Callable[[], bool]) -> None:
    """Until something is so."""
    import time

    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_handler_begins_only_while_its_lease_holds(manager: SessionManager, runner: SessionRunner) -> None:
    """Whoever was stopped between his claim and his work finds it done by another: he must not begin from the beginning."""
    begun: list[tuple[str, int]] = []

    @runner.handler("k")
    def work(run: Run) -> None:
        begun.append((run.session_id, run.step))

    for session_id in ("lost", "ended", "deleted"):
        manager.create_session(session_id=session_id, kind="k", available_at=now())
        manager.save_state(session_id, step=7)
    leases = {lease.session_id: lease for lease in runner.manager.claim(["k"], holder=runner.holder, ttl=30, limit=3)}
    manager.complete_session("lost")
    leases["lost"].lose("its process was stopped")
    # An operator's transition, which the holder does not know of yet.
    manager.end_session("ended")
    manager.delete_session("deleted", force=True)
    for lease in leases.values():
        runner._begin(lease)
    wait(lambda: not runner._running)
    assert begun == [("ended", 7)]
    assert state_of(manager, "lost")[0] == "completed"


def test_a_handler_that_exits_fails_as_any_other(manager: SessionManager, runner: SessionRunner) -> None:
    """Neither the event loop nor the runner goes with it, and it is tried no more often than others."""

    @runner.handler("sync", max_attempts=2, backoff=0.01)
    def leave(_run: Run) -> None:
        raise SystemExit(3)

    @runner.handler("async", max_attempts=2, backoff=0.01)
    async def leave_async(_run: AsyncRun) -> None:
        raise SystemExit(3)

    for kind in ("sync", "async"):
        manager.create_session(session_id=kind, kind=kind, available_at=now())
    running = threading.Thread(target=lambda: runner.run(until_idle=True))
    running.start()
    running.join(60)
    assert not running.is_alive()
    for kind in ("sync", "async"):
        state, reason = state_of(manager, kind)
        assert state == "ended"
        assert "failed 2 times" in str(reason)
        assert "SystemExit(3)" in str(reason)
