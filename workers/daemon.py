"""The daemon: opens the database, runs the cleanup jobs, shows that it lives, and ends in good order."""

import contextlib
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import lifecycle
from lifecycle import ALL, SessionManager, Settings, migrate, telemetry, urls
from lifecycle.errors import LifecycleError, StorageUnavailable
from lifecycle.faults import exit_code
from lifecycle.incarnation import incarnation
from lifecycle.log import configure_logging, get_logger, mask_passwords
from lifecycle.upkeep import Upkeep
from workers import serving

log = get_logger(__name__)

STOPPED: Final = 0
NOT_DRAINED: Final = 75
WATCHDOG_EXPIRED: Final = 70

# A worker that was silent for so many of its heartbeats is dead.
_DEAD_AFTER: Final = 10
_TURN_SECONDS: Final = 0.5
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def run(settings: Settings, *, setup: bool = False, serve: bool = False) -> int:
    """Run a daemon until SIGTERM or SIGINT; the exit code.

    0 when it stopped in good order, that of `lifecycle.faults` for the error it could not start by, 75 when a batch
    outlived `worker.drain_timeout`. The process ends by itself with 70 when a run hangs for longer than
    `worker.watchdog`, and with 143 or 130 at a second signal. `setup` brings the schema up to date first; `serve` serves the
    HTTP API and the dashboard too.
    """
    configure_logging(settings.logging.level, settings.logging.format)
    code = Daemon(settings, setup=setup, serve=serve).run()
    if code == NOT_DRAINED:
        os._exit(code)  # the interpreter would wait for the thread of that batch
    return code


class Daemon:
    """One run of a worker. `run` blocks until a signal, or until another thread calls `stop`."""

    def __init__(self, settings: Settings, *, setup: bool = False, serve: bool = False) -> None:
        self.settings = settings
        self.worker_id = incarnation(settings.worker.name)
        self._setup = setup
        self._serve = serve
        # A signal handler may put into this queue whatever it interrupted; an Event's lock it might find taken.
        self._requests: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._asked = False
        self._state = "running"
        self._ended = threading.Event()

    def stop(self) -> None:
        """Have `run` return once the batches under way are done."""
        self._requests.put("stop")

    def run(self) -> int:
        """Work until a signal or `stop`; the exit code."""
        with self._handling_signals():
            try:
                with SessionManager.open(self.settings, tenant=ALL) as manager:
                    return self._run(manager)
            except LifecycleError as error:
                log.error("worker_refused", worker_id=self.worker_id, error=mask_passwords(str(error)))  # noqa: TRY400 -- the message says what to do
                return exit_code(type(error))

    def _run(self, manager: SessionManager) -> int:
        telemetry.configure(self.settings)
        upkeep = Upkeep(manager, holder=self.worker_id)
        # While a server is waited for it can be asked how it is; a file is the worker's own until it is ready.
        waits = urls.dialect_name(self.settings.database.url) in {"postgresql", "mysql", "mariadb"}
        with contextlib.ExitStack() as stack:
            if waits:
                stack.enter_context(serving.monitored(self.settings, manager, upkeep))
            if not self._wait_for_database(manager, upkeep):
                log.info("worker_stopped", worker_id=self.worker_id, drained=True)
                return STOPPED
            if not waits:
                stack.enter_context(serving.monitored(self.settings, manager, upkeep))
            return self._work(manager, upkeep)

    def _work(self, manager: SessionManager, upkeep: Upkeep) -> int:
        """Run the jobs until told to stop; the exit code."""
        threads = [
            threading.Thread(target=target, args=(manager, upkeep), name=f"lifecycle-{name}", daemon=True)
            for name, target in (("heartbeat", self._beat_on), ("watchdog", self._watch))
        ]
        for thread in threads:
            thread.start()
        server = serving.web_server(self.settings, manager, upkeep) if self._serve else None
        upkeep.start()
        if server is not None:
            server.start()
        log.info(
            "worker_started", worker_id=self.worker_id, pid=os.getpid(), release=lifecycle.__version__,
            jobs=upkeep.enabled,
        )  # fmt: skip

        reason = self._asked_to_stop(None) or ""
        began, self._state = time.monotonic(), "stopping"
        log.info("worker_stopping", worker_id=self.worker_id, reason=reason)
        end = began + self.settings.worker.drain_timeout
        if server is not None:
            server.stop()
        # In turns, as a second signal may come just as a wait begins.
        while not (drained := upkeep.stop(_TURN_SECONDS)) and time.monotonic() < end:
            pass
        self._ended.set()
        threads[0].join(self.settings.worker.drain_timeout)
        if drained:
            try:
                manager.remove_worker(self.worker_id)
            except StorageUnavailable as error:
                log.warning("worker_left_registered", worker_id=self.worker_id, error=mask_passwords(str(error)))
        log.info(
            "worker_stopped", worker_id=self.worker_id, drained=drained, seconds=round(time.monotonic() - began, 3)
        )
        return STOPPED if drained else NOT_DRAINED

    def _wait_for_database(self, manager: SessionManager, upkeep: Upkeep) -> bool:
        """Try until the database is there, its schema is right and the worker registered; False when told to stop."""
        url = self.settings.database.url
        while True:
            began = time.monotonic()
            try:
                if self._setup:
                    manager.setup()
                elif not urls.is_memory(url):
                    migrate.check(url)
                self._beat(manager, self._state)
            except StorageUnavailable as error:
                upkeep.outage.failed(error, began)
            else:
                upkeep.outage.worked(began)
                return True
            reason = self._asked_to_stop(upkeep.outage.delay)
            if reason is not None:
                log.info("worker_stopping", worker_id=self.worker_id, reason=reason)
                return False

    def _asked_to_stop(self, seconds: float | None) -> str | None:
        """Wait for a request to stop: why, or None when the time is up."""
        end = time.monotonic() + seconds if seconds is not None else float("inf")
        while True:
            # A signal that arrives just as the wait begins does not wake it; its handler runs after this turn.
            left = min(_TURN_SECONDS, end - time.monotonic())
            with contextlib.suppress(queue.Empty):
                return self._requests.get(timeout=max(0.0, left))
            if left < _TURN_SECONDS:
                return None

    def _beat(self, manager: SessionManager, state: str) -> None:
        manager.beat_worker(
            self.worker_id, host=socket.gethostname(), pid=os.getpid(), release=lifecycle.__version__, state=state
        )

    def _beat_on(self, manager: SessionManager, upkeep: Upkeep) -> None:
        """Renew the sign of life, through an outage too: the beat that works again ends the outage for the jobs."""
        beats = 0
        while not self._ended.wait(self.settings.worker.heartbeat):
            began = time.monotonic()
            try:
                self._beat(manager, self._state)
                if beats % _DEAD_AFTER == 0:
                    self._bury(manager)
                beats += 1
            except StorageUnavailable as error:
                upkeep.outage.failed(error, began)
            except Exception:
                log.exception("heartbeat_failed", worker_id=self.worker_id)
            else:
                upkeep.outage.worked(began)

    def _bury(self, manager: SessionManager) -> None:
        """Remove the rows of workers that died; the database's clock decides, as it wrote all beats."""
        workers = manager.list_workers()["workers"]
        mine = next((row["beat_at"] for row in workers if row["worker_id"] == self.worker_id), None)
        for row in workers:
            silent = (mine - row["beat_at"]).total_seconds() if mine else 0.0
            if silent > _DEAD_AFTER * self.settings.worker.heartbeat:
                manager.remove_worker(row["worker_id"])
                log.warning("worker_gone", worker_id=row["worker_id"], silent_seconds=round(silent, 1))

    def _watch(self, _manager: SessionManager, upkeep: Upkeep) -> None:
        """End the process when a run hangs: its supervisor starts another, whose connections are new."""
        limit = self.settings.worker.watchdog
        while not self._ended.wait(min(1.0, limit / 4)):
            longest = upkeep.longest_run()
            if longest is not None and longest[1] > limit:
                name, seconds, stack = longest
                log.critical(
                    "watchdog_expired", worker_id=self.worker_id, sweep=name, seconds=round(seconds, 1), stack=stack
                )
                os._exit(WATCHDOG_EXPIRED)

    @contextlib.contextmanager
    def _handling_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # signals are the main thread's; `stop` is for this one
            return

        def handle(number: int, _frame: Any) -> None:
            if self._asked:
                os._exit(128 + number)
            self._asked = True
            self._requests.put(signal.Signals(number).name)

        before = {number: signal.signal(number, handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
