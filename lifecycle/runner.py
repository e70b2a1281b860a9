"""`SessionRunner`: claims sessions, runs their handlers under leases, and carries on what a dead process left.

Work is at least once per step: a step whose save was acknowledged is in the state that the next try starts from.
"""

import asyncio
import contextlib
import inspect
import os
import random
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Final, Literal, Self, TypeVar, get_args

from lifecycle.errors import (
    InvalidArgument,
    InvalidTransition,
    LeaseLost,
    LifecycleError,
    SessionNotFound,
    StorageUnavailable,
)
from lifecycle.incarnation import incarnation
from lifecycle.lease import Lease, check_times
from lifecycle.log import get_logger, mask_passwords
from lifecycle.manager.blocking import SessionManager
from lifecycle.news import WORK, hearing
from lifecycle.operations.context import AllTenants, check_count
from lifecycle.run import AsyncRun, Run, RunStopped
from lifecycle.settings import Settings

log = get_logger(__name__)

Rescue = Literal["resume", "suspend", "end"]
Handler = Callable[[Any], Any]
H = TypeVar("H", bound=Handler)

# Reasons are for people; the whole trace is in the log.
_REASON_CHARS: Final = 500
_LONGEST_OUTAGE_PAUSE: Final = 2.0
_MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class HandlerOptions:
    """How often a session of a kind is tried, and what is done with one whose process died."""

    handler: Handler
    max_attempts: int
    max_rescues: int
    rescue: Rescue
    backoff: float
    longest_backoff: float

    def pause(self, attempt: int) -> float:
        """Seconds until the next try: doubled with each one, with jitter, up to the longest."""
        exact = min(self.longest_backoff, self.backoff * 2.0 ** min(attempt - 1, 30))
        return exact * random.uniform(0.75, 1.25)  # noqa: S311 - spreads the tries, keeps no secret


class SessionRunner:
    """Runs handlers on the sessions of their kinds, `concurrency` at a time, sync or async ones.

        runner = SessionRunner("postgresql://...")

        @runner.handler("copilot")
        async def copilot(run):
            for step in range(run.step, 10):
                await run.save(step=step + 1, context=await think(run.state))

        runner.run()  # until SIGTERM: claims no more, waits for the next saves, gives back what is unfinished

    A session waits for a runner from its `available_at` on, and again when it is resumed. A handler that returns
    completes it; one that raises is tried again from the last save, with growing pauses, up to `max_attempts` times
    without progress, and then ends it with the reason. A session whose process died is taken over once its lease ran
    out; after `max_rescues` times without progress it is ended: it may be what kills its processes.
    """

    def __init__(
        self,
        url: str | Settings,
        tenant: str | AllTenants = "",
        *,
        concurrency: int = 10,
        ttl: float = 30.0,
        heartbeat: float | None = None,
        poll: float = 0.1,
        drain_timeout: float = 20.0,
        name: str | None = None,
    ) -> None:
        check_count(concurrency, "concurrency", 1, _MOST)
        _check_seconds(poll, "poll")
        _check_seconds(drain_timeout, "drain_timeout")
        self.ttl, self.heartbeat = check_times(ttl, heartbeat)
        self.holder = incarnation(name)
        self.manager = SessionManager.open(url, tenant)
        self.handlers: dict[str, HandlerOptions] = {}
        self._concurrency = concurrency
        self._poll = poll
        self._drain_timeout = drain_timeout
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._running: set[Run] = set()
        # Something may be held under our name that no handler works on.
        self._adrift = threading.Event()
        self._changed = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None

    def handler(
        self,
        kind: str,
        *,
        max_attempts: int = 5,
        max_rescues: int = 5,
        rescue: Rescue = "resume",
        backoff: float = 1.0,
        longest_backoff: float = 300.0,
    ) -> Callable[[H], H]:
        """Register the function that works on the sessions of a kind; it gets a `Run` (an `AsyncRun` if it is async).

        `rescue` says what is done with a session whose process died: `resume` its work, `suspend` it for a person, or
        `end` it.
        """
        if kind in self.handlers:
            raise InvalidArgument(f"kind {kind!r} has a handler already")
        if rescue not in get_args(Rescue):
            raise InvalidArgument(f"rescue must be one of {', '.join(get_args(Rescue))}, not {rescue!r}")
        if max_attempts < 1 or max_rescues < 0 or backoff <= 0 or longest_backoff < backoff:
            raise InvalidArgument("max_attempts must be 1 or more, max_rescues 0 or more, backoff more than 0 seconds")

        def register(handler: H) -> H:
            self.handlers[kind] = HandlerOptions(handler, max_attempts, max_rescues, rescue, backoff, longest_backoff)
            return handler

        return register

    def run(self, *, until_idle: bool = False) -> bool:
        """Work until a signal or `stop`; with `until_idle`, until nothing waits. Whether all work came to an end.

        The first SIGTERM or SIGINT drains, the second ends the process at once.
        """
        if not self.handlers:
            raise InvalidArgument("the runner has no handlers: register one with @runner.handler(kind)")
        with self._handling_signals():
            beats = threading.Thread(target=self._beat_on, name="lifecycle-runner-beat", daemon=True)
            self._beat()
            log.info("runner_started", holder=self.holder, kinds=sorted(self.handlers), concurrency=self._concurrency)
            beats.start()
            self._start_loop()
            try:
                with hearing(self.manager._driver, WORK, self._wake.set):  # noqa: SLF001 - its own manager
                    self._claim_on(until_idle=until_idle)
            finally:
                drained = self._drain()
                self._ended.set()
                self._stop_loop()
                with contextlib.suppress(StorageUnavailable):
                    self.manager.remove_worker(self.holder)
                log.info("runner_stopped", holder=self.holder, drained=drained)
                # It may be run again.
                self._stopping.clear()
                self._ended.clear()
        return drained

    def stop(self) -> None:
        """Have `run` stop: it claims no more, and each handler ends at its next save."""
        self._stopping.set()
        for run in list(self._running):
            run.stop_requested = True
        self._wake.set()

    def close(self) -> None:
        """Close the connections."""
        self.manager.close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop and close."""
        self.stop()
        self.close()

    def _claim_on(self, *, until_idle: bool) -> None:
        pause = self._poll
        while not self._stopping.is_set():
            self._wake.clear()
            free = self._concurrency - len(self._running)
            claimed: list[Lease] = []
            if free > 0:
                try:
                    claimed = self.manager.claim(
                        list(self.handlers), holder=self.holder, ttl=self.ttl, heartbeat=self.heartbeat, limit=free
                    )
                    pause = self._poll
                except StorageUnavailable as error:
                    self._adrift.set()  # the claim may have been made, and only its answer been lost
                    log.warning("claim_failed", holder=self.holder, error=mask_passwords(str(error)))
                    pause = min(_LONGEST_OUTAGE_PAUSE, pause * 2)
            for lease in claimed:
                self._begin(lease)
            if until_idle and not claimed and not self._running and free > 0 and not self._waits():
                return
            if not claimed:
                self._wake.wait(pause)

    def _waits(self) -> bool:
        """Whether anything waits for later: a retry, or a lease that has to run out."""
        found = self.manager.list_sessions(state="active", where=_runs(list(self.handlers)), limit=1)
        return bool(found.items)

    def _begin(self, lease: Lease) -> None:
        session = lease.session
        if session is None:  # pragma: no cover - a claim has one
            return
        options = self.handlers[session.kind]
        kind = AsyncRun if inspect.iscoroutinefunction(options.handler) else Run
        run = kind(self.manager.for_tenant(lease.tenant), lease, session)
        with self._changed:
            self._running.add(run)
        run.stop_requested = self._stopping.is_set()
        # A daemon thread: a handler that never ends must not keep the process from ending.
        threading.Thread(
            target=self._work_on, args=(run, options), name=f"lifecycle-run-{session.session_id[:40]}", daemon=True
        ).start()

    def _work_on(self, run: Run, options: HandlerOptions) -> None:
        try:
            self._work(run, options)
        except BaseException as error:
            log.exception("run_failed", session_id=run.session_id, error=mask_passwords(repr(error)))
        finally:
            with self._changed:
                self._running.discard(run)
                self._changed.notify_all()
            self._wake.set()

    def _work(self, run: Run, options: HandlerOptions) -> None:
        """Run a handler to its end and see to what comes of it."""
        session, lease = run.session, run.lease
        facts = {"session_id": session.session_id, "kind": session.kind, "epoch": lease.epoch, "holder": self.holder}
        if session.rescues:
            log.warning("session_rescued", **facts, rescues=session.rescues, attempts=session.attempts)
        else:
            log.info("session_claimed", **facts, attempts=session.attempts)
        try:
            if self._rescue_ends(run, options):
                return
            try:
                self._call(run, options.handler)
            except RunStopped:
                run.hand_back(0.0, forget=True)
                log.info("session_handed_back", **facts)
            except LeaseLost:
                raise
            except StorageUnavailable:
                raise
            except Exception as error:
                log.exception("handler_failed", **facts, attempts=session.attempts)
                self._failed(run, options, error)
            else:
                run.finish()
        except LeaseLost:
            log.warning("run_lost", **facts)
        except (InvalidTransition, SessionNotFound) as error:
            log.warning("run_superseded", **facts, error=str(error))
        except StorageUnavailable as error:
            log.warning("run_interrupted", **facts, error=mask_passwords(str(error)))
        finally:
            if not run.over:
                # Nobody looks at the leases of a runner that gives signs of life: it has to let go itself.
                self._adrift.set()
                with contextlib.suppress(LifecycleError):
                    run.hand_back(0.0, forget=True)
            run.let_go()

    def _call(self, run: Run, handler: Handler) -> None:
        _ = run.state  # read here, and not in the event loop
        # Only while the lease is held is what was read the last word, and the step after it nobody else's.
        run.lease.fence()
        if isinstance(run, AsyncRun):
            if self._loop is None:  # pragma: no cover - started ahead of the first claim
                raise LifecycleError("the runner's event loop is gone")
            future = asyncio.run_coroutine_threadsafe(_awaited(handler, run), self._loop)
            run.cancel = future.cancel
            future.result()
        else:
            with _exits():
                handler(run)

    def _rescue_ends(self, run: Run, options: HandlerOptions) -> bool:
        """Apply the rescue policy to a session whose process died; whether its handler is not to be called."""
        rescues = run.session.rescues
        if not rescues:
            return False
        if rescues > options.max_rescues:
            run.move("end", f"its process died {rescues} times without progress")
        elif options.rescue == "end":
            run.move("end", "its process died")
        elif options.rescue == "suspend":
            run.move("suspend", "its process died")
        else:
            return False
        return True

    def _failed(self, run: Run, options: HandlerOptions, error: Exception) -> None:
        reason = "".join(traceback.format_exception_only(error)).strip().replace("\x00", "")[:_REASON_CHARS]
        attempts = 1 if run.progressed else run.session.attempts
        if attempts >= options.max_attempts:
            run.move("end", f"failed {attempts} times: {reason}")
            return
        pause = options.pause(attempts)
        run.hand_back(pause)
        log.warning("session_retried", session_id=run.session_id, attempts=attempts, seconds=round(pause, 3))

    def _beat(self) -> None:
        import lifecycle

        self.manager.beat_worker(
            self.holder, host=socket.gethostname(), pid=os.getpid(), release=lifecycle.__version__, state="running"
        )

    def _beat_on(self) -> None:
        """The sign of life by which others know that our leases need no looking at."""
        while not self._ended.wait(self.heartbeat):
            try:
                self._beat()
                if self._adrift.is_set():
                    self._let_go_of_adrift()
            except StorageUnavailable as error:
                log.warning("heartbeat_failed", holder=self.holder, error=mask_passwords(str(error)))
            except Exception:
                log.exception("heartbeat_failed", holder=self.holder)

    def _let_go_of_adrift(self) -> None:
        """Hand back what is leased under our name and run by no handler, once its lease ran out."""
        self._adrift.clear()
        cursor: str | None = None
        while True:
            page = self.manager.list_sessions(where=_held_by(self.holder), sort="session_id", cursor=cursor, limit=100)
            with self._changed:
                running = {(run.session.tenant, run.session_id) for run in self._running}
            for session in page.items:
                if (session.tenant, session.session_id) in running:
                    continue
                if session.lease_expires_at is None or session.lease_expires_at > datetime.now(UTC):
                    self._adrift.set()  # it may be on its way to its handler: look again
                    continue
                own = self.manager.for_tenant(session.tenant)
                key, epoch = session.session_id, session.lease_epoch
                if own.hand_back(key, holder=self.holder, epoch=epoch, retry_in=0.0, forget=True):
                    log.warning("session_let_go", session_id=key, holder=self.holder, epoch=epoch)
            cursor = page.next_cursor
            if cursor is None:
                return

    def _drain(self) -> bool:
        """Let handlers come to their next save; then take the rest away from them."""
        self._stopping.set()
        with self._changed:
            for run in self._running:
                run.stop_requested = True
            self._changed.wait_for(lambda: not self._running, self._drain_timeout)
            left = list(self._running)
        for run in left:
            # Others go on at once; what this handler still writes is refused.
            with contextlib.suppress(LifecycleError):
                run.hand_back(0.0, forget=True)
            run.lease.lose("its runner stopped")
            if isinstance(run, AsyncRun):
                run.cancel()
        return not left

    def _start_loop(self) -> None:
        if any(inspect.iscoroutinefunction(options.handler) for options in self.handlers.values()):
            self._loop = asyncio.new_event_loop()
            self._loop_thread = threading.Thread(target=self._loop.run_forever, name="lifecycle-loop", daemon=True)
            self._loop_thread.start()

    def _stop_loop(self) -> None:
        if self._loop is not None and self._loop_thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop_thread.join(5.0)
            if not self._loop_thread.is_alive():
                self._loop.close()
            self._loop = self._loop_thread = None

    @contextlib.contextmanager
    def _handling_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, _frame: FrameType | None) -> None:
            if self._stopping.is_set():
                os._exit(128 + number)
            log.info("runner_stopping", holder=self.holder, reason=signal.Signals(number).name)
            self.stop()

        before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class HandlerExited(Exception):
    """A handler called `sys.exit`: that ends its try as any failure does, and not the runner."""


@contextlib.contextmanager
def _exits() -> Iterator[None]:
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as error:
        raise HandlerExited(repr(error)) from error


async def _awaited(handler: Handler, run: AsyncRun) -> None:
    # Out of a task of its own these would end the event loop, and all handlers in it would hang.
    with _exits():
        await handler(run)


def _held_by(holder: str) -> Any:
    from lifecycle.models import tables as t

    return (t.sessions.c.lease_holder == holder) & t.sessions.c.runs.is_(True)


def _check_seconds(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise InvalidArgument(f"{name} must be seconds, more than 0; not {value!r}")


def _runs(kinds: list[str]) -> Any:
    from lifecycle.models import tables as t

    return t.sessions.c.runs.is_(True) & t.sessions.c.kind.in_(kinds)
