"""News over PostgreSQL's NOTIFY, gathered.

A NOTIFY makes its transaction's commit queue behind all others that notify (PostgreSQL takes one lock of the whole
cluster for it), so nothing notifies as part of its own work: a thread tells of what was committed, once in 50 ms at
most, on the connection it listens on. Both are there only while there is something to tell or somebody to hear.
"""

import contextlib
import os
import select
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

import psycopg

from lifecycle.drivers import postgresql_pool as pools
from lifecycle.log import get_logger, mask_passwords
from lifecycle.news import ANY_LEASE
from lifecycle.settings import DatabaseSettings

log = get_logger("lifecycle")

CHANNEL: Final = "lifecycle"
SPACING: Final = 0.05
# A payload must be shorter than 8000 bytes, and a topic takes up to 15.
_MOST_TOPICS: Final = 400
_IDLE: Final = 30.0
_LONGEST_PAUSE: Final = 10.0
_LAST_WORDS: Final = 0.5
clock = time.monotonic


class PostgresBell:
    """Sends and hears the news of one database."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._guard = threading.Lock()
        self._pending: set[str] = set()
        self._listeners: defaultdict[str, list[Callable[[], None]]] = defaultdict(list)
        self._thread: threading.Thread | None = None
        self._closing = False
        self._nudges, self._nudge_end = os.pipe()
        os.set_blocking(self._nudges, False)
        os.set_blocking(self._nudge_end, False)
        self.sent = 0

    def ring(self, news: tuple[str, ...]) -> None:
        """Tell of news, soon, without waiting."""
        if self._pending.issuperset(news):
            return
        with self._guard:
            self._pending.update(news)
            if len(self._pending) > _MOST_TOPICS:
                self._pending = {topic for topic in self._pending if ":" not in topic} | {ANY_LEASE}
            self._nudge()

    def listen(self, topic: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called from another thread at news of a topic, until what is returned is called."""
        with self._guard:
            self._listeners[topic].append(wake)
            self._nudge()

        def end() -> None:
            with self._guard:
                self._listeners[topic].remove(wake)
                if not self._listeners[topic]:
                    del self._listeners[topic]

        return end

    def close(self) -> None:
        """Tell what is left to tell, and end."""
        with self._guard:
            self._closing = True
            thread = self._thread
            if thread is not None:
                self._nudge()
        if thread is not None:
            thread.join(_LAST_WORDS)
        with self._guard:
            if self._thread is None:  # one that hangs in a dead connection keeps its pipe
                os.close(self._nudges)
                os.close(self._nudge_end)

    def _nudge(self) -> None:
        """Have the thread look, starting it if there is none; the guard is held."""
        if self._thread is not None:
            with contextlib.suppress(BlockingIOError):  # it has enough to read as it is
                os.write(self._nudge_end, b"x")
        elif not self._closing:
            self._thread = threading.Thread(target=self._run, name="lifecycle-bell", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        pause, broken = 0.0, False
        while self._needed():
            try:
                with psycopg.connect(pools.conninfo(self._settings), **self._arguments()) as connection:
                    if broken:
                        log.info("news_resumed")
                    pause, broken = 0.0, False
                    self._serve(connection)
            except psycopg.Error as error:
                if not broken:
                    log.warning("news_interrupted", error=mask_passwords(str(error)).strip())
                broken = True
                pause = min(_LONGEST_PAUSE, max(0.1, pause * 2))
                self._wait_out(pause)

    def _arguments(self) -> dict[str, Any]:
        return pools.arguments(self._settings) | {"application_name": "lifecycle news"}

    def _needed(self) -> bool:
        """Whether to connect (again); if not, the thread is as good as gone."""
        with self._guard:
            if self._closing or not (self._pending or self._listeners):
                self._thread = None
                return False
            return True

    def _wait_out(self, pause: float) -> None:
        deadline = clock() + pause
        while not self._closing and (left := deadline - clock()) > 0:
            select.select([self._nudges], [], [], left)
            self._drain()

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._nudges, 4096):
                pass

    def _serve(self, connection: psycopg.Connection[Any]) -> None:
        """Tell and hear until there was nothing to do for a while."""
        connection.add_notify_handler(lambda note: self._heard(note.payload))
        poll = select.poll()
        poll.register(self._nudges, select.POLLIN)
        poll.register(connection.fileno(), select.POLLIN)
        listening, not_before = False, 0.0
        while True:
            if self._listeners and not listening:
                connection.execute(f"LISTEN {CHANNEL}".encode())
                listening = True
                self._wake_all()  # for what was said before
            if self._pending and (self._closing or clock() >= not_before):
                self._tell(connection)
                not_before = clock() + SPACING
            if self._closing:
                return
            left = not_before - clock() if self._pending else _IDLE
            ready = poll.poll(max(0.0, left) * 1000)
            self._drain()
            if any(descriptor != self._nudges for descriptor, _ in ready):
                connection.pgconn.consume_input()
                while note := connection.pgconn.notifies():
                    self._heard(note.extra.decode("utf-8", "replace"))
            if not (ready or self._pending or self._listeners):
                return

    def _tell(self, connection: psycopg.Connection[Any]) -> None:
        with self._guard:
            news, self._pending = self._pending, set()
        connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, " ".join(sorted(news))))
        self.sent += 1

    def _heard(self, payload: str) -> None:
        news = set(payload.split())
        with self._guard:
            wakes = [
                wake
                for topic, waiting in self._listeners.items()
                if topic in news or (ANY_LEASE in news and topic.startswith(ANY_LEASE))
                for wake in waiting
            ]
        _call(wakes)

    def _wake_all(self) -> None:
        with self._guard:
            wakes = [wake for waiting in self._listeners.values() for wake in waiting]
        _call(wakes)


def _call(wakes: list[Callable[[], None]]) -> None:
    for wake in wakes:
        try:
            wake()
        except Exception:  # one that cannot be woken must not keep the others asleep
            log.exception("wake_failed")


_shared: dict[tuple[Any, ...], tuple[PostgresBell, int]] = {}
_sharing = threading.Lock()


def borrow(settings: DatabaseSettings) -> PostgresBell | None:
    """The process's bell for a database, None where it is to have none; give it back with `release`."""
    if not settings.notify or settings.pooler:
        return None
    with _sharing:
        bell, users = _shared.get(_key(settings), (None, 0))
        if bell is None:
            bell = PostgresBell(settings)
        _shared[_key(settings)] = (bell, users + 1)
        return bell


def release(settings: DatabaseSettings) -> None:
    """Give the bell back; the last user closes it."""
    with _sharing:
        bell, users = _shared.pop(_key(settings), (None, 0))
        if bell is not None and users > 1:
            _shared[_key(settings)] = (bell, users - 1)
            return
    if bell is not None:
        bell.close()


def _key(settings: DatabaseSettings) -> tuple[Any, ...]:
    return (os.getpid(), *settings.model_dump(exclude={"pool_size"}).items())
