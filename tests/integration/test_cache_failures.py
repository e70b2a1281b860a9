"""A cache that fails in every way there is: no call fails for it, and none gets a wrong answer."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from lifecycle import SessionManager, Settings
from lifecycle.cache.cache import Cache
from tests.managers import Blocking, opened
from tests.valkey import ValkeyServer

NAMES = ("a", "b", "c", "d")


def cache_of(manager: Any) -> Cache:
    """The cache of a manager of either kind."""
    behind: Any = manager._manager if isinstance(manager, Blocking) else manager
    cache: Cache = behind._driver.cache
    return cache


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    """Either kind of manager."""
    return str(request.param)


@contextmanager
def behind(kind: str, url: str, cache: str, **more: Any) -> Iterator[Any]:
    """A manager of a database with some sessions, behind a cache that has the default timeout."""
    with opened(Settings(database={"url": url}, cache={"url": cache} | more), kind) as manager:
        for name in NAMES:
            manager.open_session(name, context={"step": 0})
            manager.get_session(name)
            manager.load_state(name)
        yield manager


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The events of the cache so far."""
    return [record.msg["event"] for record in caplog.records if record.name == "lifecycle.cache"]  # type: ignore[index]


def recovered(manager: Any) -> None:
    """Wait until the cache is used again."""
    end = time.monotonic() + 60
    while not cache_of(manager).outage.over:
        assert time.monotonic() < end
        time.sleep(0.01)


def under_load(manager: Any, *happenings: Callable[[], Any]) -> None:
    """Have threads save and read while things happen: nobody's call fails, and everybody sees what he saved himself."""
    stop = threading.Event()
    turns = [0] * len(NAMES)

    def work(place: int) -> None:
        name = NAMES[place]
        step = manager.load_state(name).context["step"]
        while not stop.is_set():
            state = manager.load_state(name)
            assert state.context["step"] == step
            step += 1
            version = manager.save_state(name, context={"step": step}, expected_version=state.version)
            session = manager.get_session(name)
            assert (session.version, session.state) == (version, "active")
            assert manager.load_state(name).context == {"step": step}
            turns[place] += 1

    def go_on() -> None:
        """Wait until everybody has come round once more."""
        before = list(turns)
        while any(now < then + 2 for now, then in zip(turns, before, strict=True)):
            assert not any(worker.done() for worker in workers)
            time.sleep(0.002)

    with ThreadPoolExecutor(len(NAMES)) as pool:
        workers = [pool.submit(work, place) for place in range(len(NAMES))]
        try:
            go_on()
            for happening in happenings:
                happening()
                go_on()
        finally:
            stop.set()
        for worker in workers:
            worker.result()


class TestTheServerGoes:
    """While several threads are at work."""

    def test_killed_and_started_again(
        self, kind: str, migrated_sqlite_url: str, own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is passed over with one event, and used again with another."""
        caplog.set_level("INFO")
        with behind(kind, migrated_sqlite_url, own_valkey.url, timeout=2) as manager:
            under_load(manager, own_valkey.kill, own_valkey.start, lambda: recovered(manager))
            assert events(caplog) == ["cache_unavailable", "cache_recovered"]
            hits = cache_of(manager).counts.hits
            for _ in range(2):
                assert manager.get_session("a").state == "active"
            assert cache_of(manager).counts.hits > hits

    def test_paused(
        self, kind: str, migrated_sqlite_url: str, own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A server that takes connections and never answers; what was to be dropped meanwhile is dropped first."""
        caplog.set_level("INFO")
        with behind(kind, migrated_sqlite_url, own_valkey.url, timeout=2) as manager:
            under_load(manager, own_valkey.pause)
            assert events(caplog) == ["cache_unavailable"]
            asked = cache_of(manager).counts.failures
            for _ in range(50):
                assert manager.get_session("a") is not None
            assert cache_of(manager).counts.failures == asked
            assert cache_of(manager).counts.passed >= 50
            manager.suspend_session("a")
            own_valkey.resume()
            recovered(manager)
            assert manager.get_session("a").state == "suspended"
            assert events(caplog) == ["cache_unavailable", "cache_recovered"]

    def test_paused_while_others_read_what_is_owed(
        self, kind: str, migrated_sqlite_url: str, own_valkey: ValkeyServer
    ) -> None:
        """After a pause another process sees what was written during it, once the writer has reached the cache."""
        with ExitStack() as stack:
            writer = stack.enter_context(
                behind(kind, migrated_sqlite_url, own_valkey.url, timeout=2, namespace="n", pool_size=7)
            )
            reader = stack.enter_context(
                behind(kind, migrated_sqlite_url, own_valkey.url, timeout=5, namespace="n", pool_size=9)
            )
            own_valkey.pause()
            for name in NAMES:
                writer.save_state(name, context={"step": "new"})
            own_valkey.resume()
            recovered(writer)
            assert [reader.load_state(name).context for name in NAMES] == [{"step": "new"}] * len(NAMES)
            assert cache_of(reader).counts.failures == 0

    def test_emptied(self, kind: str, migrated_sqlite_url: str, own_valkey: ValkeyServer) -> None:
        """It is filled again, and scripts that it forgot are sent again."""
        with behind(kind, migrated_sqlite_url, own_valkey.url, timeout=5) as manager:
            under_load(manager, lambda: own_valkey.ask("FLUSHALL"), lambda: own_valkey.ask("SCRIPT", "FLUSH"))
            assert cache_of(manager).counts.failures == 0
            assert own_valkey.entries()

    def test_a_dump_that_comes_back_is_not_believed(
        self, kind: str, migrated_sqlite_url: str, own_valkey: ValkeyServer
    ) -> None:
        """What was dropped after it was written is in it again: another run of the server, other keys."""
        with behind(kind, migrated_sqlite_url, own_valkey.url, timeout=5) as manager:
            own_valkey.ask("SAVE")
            old = own_valkey.entries()
            for name in NAMES:
                manager.save_state(name, context={"step": "new"})
            own_valkey.kill()
            own_valkey.start()
            assert own_valkey.entries() == old
            manager.touch_session("a")  # finds out
            recovered(manager)
            for _ in range(2):
                assert [manager.load_state(name).context for name in NAMES] == [{"step": "new"}] * len(NAMES)
            assert len(own_valkey.entries()) == len(old) + len(NAMES)


class TestTheServerIsWrong:
    """From the beginning."""

    @pytest.mark.parametrize(
        "address",
        [
            "valkey://127.0.0.1:1",
            "valkey://no-such-host.invalid:6379",
            "unix:///tmp/no/such/socket",
            "redis://me:hunter2@127.0.0.1:{port}",
            "rediss://127.0.0.1:{port}",
            "valkey://127.0.0.1:{port}/99",
        ],
    )
    def test_nothing_works(
        self,
        kind: str,
        migrated_sqlite_url: str,
        valkey_server: ValkeyServer,
        address: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """No such place, no such user, no TLS, no such number: one event, without the password, and all is answered."""
        caplog.set_level("INFO")
        with behind(kind, migrated_sqlite_url, address.format(port=valkey_server.port)) as manager:
            for name in NAMES:
                manager.save_state(name, context={"step": 7})
                assert manager.load_state(name).context == {"step": 7}
            counts = cache_of(manager).counts
            assert (counts.hits, counts.fills, counts.drops) == (0, 0, 0)
            # Those that were under way as it was found out, and no more.
            assert counts.failures == 1
            assert counts.passed >= 3 * len(NAMES)
        assert events(caplog) == ["cache_unavailable", "cache_drops_lost"]
        assert "hunter2" not in caplog.text

    def test_another_kind_of_server(self, kind: str, migrated_sqlite_url: str) -> None:
        """One that answers as no cache does: with nonsense, with nothing, with an end, or a byte at a time."""
        for answers in (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"$-5\r\n",
            b"*2\r\n$zz\r\n",
            b"",
            None,
            b"+" + b"x" * 10_000,
        ):
            with Impostor(answers) as server, behind(kind, migrated_sqlite_url, server.url) as manager:
                for name in NAMES:
                    assert manager.load_state(name).context == {"step": 0}
                assert cache_of(manager).counts.failures == 1
                assert server.connections >= 1

    def test_just_the_permissions_it_needs(self, kind: str, migrated_sqlite_url: str, own_valkey: ValkeyServer) -> None:
        """Those that docs/cache.md names."""
        allowed = "+info +mget +eval +unlink +get +set +select +client +ping"
        assert f"`{allowed}` on `~lifecycle:*`" in (Path(__file__).parents[2] / "docs" / "cache.md").read_text()
        own_valkey.ask("ACL", "SETUSER", "lifecycle", "on", ">pw", "~lifecycle:*", *allowed.split())
        url = f"valkey://lifecycle:pw@127.0.0.1:{own_valkey.port}/2"
        with behind(kind, migrated_sqlite_url, url, timeout=5) as manager:
            for _ in range(2):
                manager.touch_session("a")
                assert [manager.get_session(name).session_id for name in NAMES] == list(NAMES)
            counts = cache_of(manager).counts
            assert counts.hits > 0
            assert counts.drops > 0
            assert counts.failures == 0

    def test_no_permission(self, kind: str, migrated_sqlite_url: str, own_valkey: ValkeyServer) -> None:
        """A user who may not do what it takes finds no cache; one who may not run scripts finds one that is never filled."""
        own_valkey.ask("ACL", "SETUSER", "nobody", "on", ">pw", "~*", "+ping", "+client", "+select")
        own_valkey.ask("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@all", "-@scripting")
        for user in ("nobody", "reader"):
            url = f"valkey://{user}:pw@127.0.0.1:{own_valkey.port}"
            with behind(kind, migrated_sqlite_url, url, timeout=5) as manager:
                assert [manager.get_session(name).session_id for name in NAMES] == list(NAMES)
                assert cache_of(manager).outage.over == (user == "reader")
                assert cache_of(manager).counts.fills == 0
        assert own_valkey.entries() == []


class TestTheServerIsFull:
    """It takes nothing more."""

    def test_what_is_there_is_read_and_dropped(
        self, kind: str, migrated_sqlite_url: str, own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Entries are neither lost nor stale; what is not there is read from the database, and not tried each time."""
        caplog.set_level("INFO")
        with behind(kind, migrated_sqlite_url, own_valkey.url, timeout=5) as manager:
            own_valkey.ask("CONFIG", "SET", "maxmemory", "1")
            counts = cache_of(manager).counts
            hits = counts.hits
            assert manager.get_session("a").state == "active"
            assert counts.hits == hits + 1
            under_load(manager)
            assert events(caplog) == ["cache_full"]
            assert counts.drops > 0
            assert counts.failures < 10
            own_valkey.ask("CONFIG", "SET", "maxmemory", "0")
            under_load(manager, lambda: _until(lambda: manager.load_state("b") and len(events(caplog)) > 1))
            assert events(caplog) == ["cache_full", "cache_has_room"]

    def test_entries_are_evicted(self, kind: str, migrated_sqlite_url: str, own_valkey: ValkeyServer) -> None:
        """Whichever the server throws out, generations and tokens among them, what is read is right."""
        own_valkey.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
        used = own_valkey.ask("INFO", "memory")["used_memory"]
        own_valkey.ask("CONFIG", "SET", "maxmemory", str(used + 400_000))
        with behind(kind, migrated_sqlite_url, own_valkey.url, timeout=5) as manager:

            def crowd() -> None:
                for number in range(300):
                    own_valkey_client.set(f"other{number}", b"x" * 5_000)

            import valkey

            with closing(valkey.Valkey(unix_socket_path=str(own_valkey.socket))) as own_valkey_client:
                under_load(manager, crowd)
            assert own_valkey.ask("INFO", "stats")["evicted_keys"] > 0


class TestGarbage:
    """Somebody else wrote there."""

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda client, key: client.set(key, b""),
            lambda client, key: client.set(key, os.urandom(500)),
            lambda client, key: client.set(key, b"E1" + os.urandom(500)),
            lambda client, key: client.set(key, b"T1" + b"0" * 16),
            lambda client, key: client.setrange(key, 90, b"#"),
            lambda client, key: client.append(key, b"#"),
            lambda client, key: (client.delete(key), client.rpush(key, "a", "b")),
            lambda client, key: (client.delete(key), client.hset(key, "a", "b")),
            lambda client, key: client.set(key, b"E1" + b"9" * 10_000_000),
        ],
    )
    def test_in_every_key(
        self, kind: str, migrated_sqlite_url: str, own_valkey: ValkeyServer, spoil: Callable[[Any, bytes], Any]
    ) -> None:
        """It counts as nothing, and is replaced by what is right."""
        import valkey

        with (
            behind(kind, migrated_sqlite_url, own_valkey.url, timeout=5) as manager,
            closing(valkey.Valkey(unix_socket_path=str(own_valkey.socket))) as client,
        ):
            with SessionManager.open(migrated_sqlite_url) as plain:
                truth = [(plain.get_session(name), plain.load_state(name)) for name in NAMES]
            for part in (b"sl", b"gt", b"slgt"):
                keys = [key for key in own_valkey.held() if key.split(b":", 3)[3][:1] in part]
                assert keys
                for key in keys:
                    spoil(client, key)
                for _ in range(3):
                    assert [(manager.get_session(name), manager.load_state(name)) for name in NAMES] == truth
                hits = cache_of(manager).counts.hits
                assert [(manager.get_session(name), manager.load_state(name)) for name in NAMES] == truth
                assert cache_of(manager).counts.hits == hits + 2 * len(NAMES)
            assert cache_of(manager).counts.failures == 0

    def test_one_sessions_entry_under_anothers_key(
        self, kind: str, migrated_sqlite_url: str, own_valkey: ValkeyServer
    ) -> None:
        """Each is asked whose it is."""
        with behind(kind, migrated_sqlite_url, own_valkey.url, timeout=5) as manager:
            for part in (b"s", b"l"):
                first, *others = own_valkey.entries(part)
                for other in others:
                    own_valkey.ask("COPY", first, other, "REPLACE")
            assert [manager.get_session(name).session_id for name in NAMES] == list(NAMES)
            assert [manager.load_state(name).session_id for name in NAMES] == list(NAMES)

    def test_under_load(self, kind: str, migrated_sqlite_url: str, own_valkey: ValkeyServer) -> None:
        """While it is read and written."""
        import valkey

        with (
            behind(kind, migrated_sqlite_url, own_valkey.url, timeout=5) as manager,
            closing(valkey.Valkey(unix_socket_path=str(own_valkey.socket))) as client,
        ):

            def spoil() -> None:
                for key in client.scan_iter(count=1000):
                    client.set(key, os.urandom(100))

            def met() -> bool:
                spoil()
                return cache_of(manager).counts.rejected >= 10

            under_load(manager, lambda: _until(met))
            assert cache_of(manager).counts.failures == 0


class TestCrowds:
    """More calls than connections."""

    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_a_busy_cache_has_not_failed(self, kind: str, migrated_sqlite_url: str, own_valkey: ValkeyServer) -> None:
        """Who cannot get a connection in time reads from the database; the cache goes on."""
        with behind(kind, migrated_sqlite_url, own_valkey.url, timeout=2, pool_size=1) as manager:
            cache = cache_of(manager)
            link: Any = cache.link if kind == "sync" else manager._manager._driver._link
            passed = cache.counts.passed
            link._permits = (threading.Semaphore if kind == "sync" else asyncio.Semaphore)(0)
            assert manager.get_session("a").session_id == "a"
            link._permits.release()
            hits = cache.counts.hits
            assert manager.get_session("a").session_id == "a"
            assert cache.counts.hits == hits + 1
            assert cache.counts.passed == passed + 1
            assert (cache.counts.failures, cache.outage.over) == (0, True)


class TestProcesses:
    """More than one."""

    def test_after_a_fork(self, migrated_sqlite_url: str, own_valkey: ValkeyServer) -> None:
        """A child does not use its parent's connections, not even for what the cache would answer."""
        with behind("sync", migrated_sqlite_url, own_valkey.url, timeout=5) as manager:
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    manager.get_session("a")
                    os.write(writing, b"answered")
                except Exception as error:  # noqa: BLE001 - told to the parent
                    os.write(writing, str(error).encode())
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            assert b"before fork()" in os.read(reading, 1000)
            os.close(reading)
            os.close(writing)

    def test_the_last_user_closes_it(self, migrated_sqlite_url: str, own_valkey: ValkeyServer) -> None:
        """Managers of one database share it; when they are closed, so are its connections."""
        settings = Settings(database={"url": migrated_sqlite_url}, cache={"url": own_valkey.url, "timeout": 5})
        with SessionManager.open(settings) as one, SessionManager.open(settings) as other:
            assert cache_of(one) is cache_of(other)
            one.open_session("s")
            other.get_session("s")
        assert own_valkey.ask("CLIENT", "LIST").count(b"name=lifecycle") == 0


class Impostor:
    """A server that answers whatever it is asked with the same bytes: slowly, at once (empty: it hangs up), or never."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._accepted: list[socket.socket] = []
        self.connections = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"valkey://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for accepted in self._accepted:
            accepted.close()

    def _serve(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._accepted.append(accepted)
            if self._answer is None:
                continue
            try:
                accepted.recv(65536)
                if len(self._answer) > 1000:
                    threading.Thread(target=self._trickle, args=(accepted,), daemon=True).start()
                elif self._answer:
                    accepted.sendall(self._answer)
                else:
                    accepted.close()
            except OSError:
                continue

    def _trickle(self, accepted: socket.socket) -> None:
        try:
            for byte in self._answer or b"":
                accepted.sendall(bytes([byte]))
                time.sleep(0.01)
        except OSError:
            return


def _until(holds: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)
