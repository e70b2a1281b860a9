"""The cache in front of a database: what is read through it, what it never shows, and that it is never in the way."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa

from lifecycle import ALL, AsyncSessionManager, SessionManager, Settings, VersionConflict
from lifecycle.cache import commands
from lifecycle.cache.cache import Cache
from lifecycle.cache.entries import LEASED_SECONDS
from lifecycle.cache.links import Budget
from lifecycle.models import tables as t
from tests.managers import Blocking, backdate, connected, opened
from tests.valkey import ValkeyServer

PAST = datetime.now(UTC) - timedelta(days=400)


def settings_for(url: str, server: ValkeyServer, **cache: Any) -> Settings:
    """A database behind a cache with a timeout that a busy machine keeps."""
    return Settings(database={"url": url}, cache={"url": server.url, "timeout": 5} | cache)


def apart(url: str, server: ValkeyServer, **cache: Any) -> Settings:
    """As `settings_for`, for a manager that shares nothing in this process with others: as one in another process."""
    return settings_for(url, server, namespace="shared", pool_size=next(_sizes), **cache)


_sizes = iter(range(8, 10_000))


def cache_of(manager: Any) -> Cache:
    """The cache of a manager of either kind."""
    behind: Any = manager._manager if isinstance(manager, Blocking) else manager
    cache: Cache = behind._driver.cache
    return cache


@pytest.fixture(params=["migrated_sqlite_url", "migrated_postgres_url"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database with the schema in place."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture(params=["sync", "async"])
def manager(request: pytest.FixtureRequest, url: str, valkey_server: ValkeyServer) -> Iterator[Any]:
    """A manager of either kind behind a cache."""
    with opened(settings_for(url, valkey_server), request.param) as behind:
        yield behind


@pytest.fixture
def two(url: str, valkey_server: ValkeyServer) -> Iterator[tuple[Any, Any]]:
    """Two managers of one database and one cache that know nothing of each other, as in two processes."""
    valkey_server.ask("FLUSHALL")
    with (
        SessionManager.open(apart(url, valkey_server)) as one,
        SessionManager.open(apart(url, valkey_server)) as other,
    ):
        yield one, other


class TestReading:
    """What the cache answers, and what it is not asked."""

    def test_a_read_is_answered_by_the_cache(self, manager: Any) -> None:
        """The second of two reads is, and it is equal to the first."""
        manager.create_session(session_id="é", metadata={"big": 1e22}, context={"z": -0.0}, available_at=PAST)
        manager.save_state("é", append=["\0"], phase="p", step=2**60)
        counts = cache_of(manager).counts
        for read in (manager.get_session, manager.load_state):
            first, hits = read("é"), counts.hits
            assert repr(read("é")) == repr(first)
            assert counts.hits == hits + 1

    def test_nothing_is_kept_of_what_is_not_there(self, manager: Any) -> None:
        """A session that is made later is seen at once."""
        for _ in range(2):
            assert manager.get_session("s") is None
            assert manager.load_state("s") is None
        manager.create_session(session_id="s")
        assert manager.get_session("s").version == 1
        assert manager.load_state("s") is None
        manager.save_state("s", step=1)
        assert manager.load_state("s").step == 1

    def test_many_writes_are_seen_at_once(self, two: tuple[Any, Any]) -> None:
        """By whoever has read before, of each session; those that were refused stay, and so do states beside messages."""
        one, other = two
        names = [f"s{number}" for number in range(8)]
        for name in names:
            one.create_session(session_id=name, context={"n": 0})
        one.suspend_session("s7")

        def read() -> list[tuple[Any, ...]]:
            found = [(other.get_session(name), other.load_state(name)) for name in names]
            return [(session.version, session.message_count, state.version, state.context) for session, state in found]

        for number in range(1, 3):
            read()
            hits = cache_of(other).counts.hits
            assert read() == read()
            assert cache_of(other).counts.hits == hits + 32
            outcomes = one.save_many(
                [{"session_id": name, "context": {"n": number}, "token": f"{number}"} for name in names]
            )
            assert outcomes[:7] == [number + 1] * 7
            assert [row[0::2] for row in read()] == [(number + 1, number + 1)] * 7 + [(2, 2)]
            assert [row[3] for row in read()] == [{"n": number}] * 7 + [{"n": 0}]
            message = {"role": "user", "content": "hello"}
            one.add_messages_many([{"session_id": name, "messages": [message]} for name in names])
            assert [row[1] for row in read()] == [number] * 8

    def test_a_large_state_is_not_kept(self, url: str, valkey_server: ValkeyServer) -> None:
        """It is read from the database each time."""
        with SessionManager.open(settings_for(url, valkey_server, max_bytes=10_000)) as manager:
            manager.create_session(session_id="s", context="x" * 9_000)
            manager.load_state("s")
            assert cache_of(manager).counts.fills == 1
            manager.save_state("s", context="x" * 10_000)
            for _ in range(2):
                assert len(cast("Any", manager.load_state("s")).context) == 10_000
            assert cache_of(manager).counts.fills == 1

    def test_an_entry_ends(self, url: str, valkey_server: ValkeyServer) -> None:
        """It is kept for `ttl`."""
        with SessionManager.open(apart(url, valkey_server, ttl=100)) as manager:
            valkey_server.ask("FLUSHALL")
            manager.create_session(session_id="s")
            manager.get_session("s")
            (key,) = valkey_server.entries()
            assert 90 < valkey_server.ask("TTL", key) <= 100

    def test_tenants_share_nothing(self, manager: Any) -> None:
        """One id in two tenants is two sessions, in the cache too."""
        other = manager.for_tenant("other")
        manager.create_session(session_id="s", title="ours")
        for _ in range(2):
            assert other.get_session("s") is None
            assert manager.get_session("s").title == "ours"
        other.create_session(session_id="s", title="theirs")
        for _ in range(2):
            assert (manager.get_session("s").title, other.get_session("s").title) == ("ours", "theirs")

    def test_a_message_leaves_the_state(self, manager: Any) -> None:
        """A conversation does not make its states be read again; the count of messages is right all the same."""
        manager.create_session(session_id="s", context={})
        manager.load_state("s")
        counts = cache_of(manager).counts
        for number in range(1, 4):
            hits = counts.hits
            manager.add_message("s", "user", "hello")
            manager.load_state("s")
            assert counts.hits == hits + 1
            assert manager.get_session("s").message_count == number

    def test_over_a_port(self, migrated_sqlite_url: str, valkey_server: ValkeyServer) -> None:
        """With either scheme's name, and another number of database."""
        for cache in (valkey_server.tcp_url, valkey_server.tcp_url.replace("valkey:", "redis:").replace("/0", "/3")):
            settings = Settings(database={"url": migrated_sqlite_url}, cache={"url": cache, "timeout": 5})
            for kind in ("sync", "async"):
                with opened(settings, kind) as manager:
                    manager.open_session("s")
                    assert manager.get_session("s") == manager.get_session("s")
                    assert cache_of(manager).counts.hits >= 1
                    assert cache_of(manager).counts.failures == 0


class TestStaleness:
    """Once a write has returned, every read that begins afterwards shows it, in every process."""

    @pytest.mark.parametrize(
        "change",
        [
            lambda one: one.save_state("s", step=2),
            lambda one: one.update_session("s", title="new"),
            lambda one: one.suspend_session("s"),
            lambda one: one.end_session("s"),
            lambda one: one.add_message("s", "user", "hello"),
            lambda one: one.add_messages("s", [{"role": "user", "content": "x", "message_id": "m"}]),
            lambda one: one.touch_session("s"),
            lambda one: one.touch_session(["s", "other"]),
            lambda one: one.acquire_lease("s", holder="h"),
            lambda one: one.claim_sessions(["chat"], holder="h"),
            lambda one: one.request_approval("s", "go on?"),
            lambda one: one.checkpoint("s", "label"),
            lambda one: one.restore_checkpoint("s", one.list_checkpoints("s")[0].seq),
            lambda one: one.delete_session("s"),
            lambda one: one.delete_session("s", soft=True),
            lambda one: one.delete_user("ann"),
            lambda one: one.open_connection("s", connection_id="c"),
            lambda one: one.open_connection("s", connection_id="c") and one.beat_connection("s", "c"),
            lambda one: one.apply_policies(),
        ],
    )
    def test_a_write_is_seen_by_all(self, two: tuple[Any, Any], change: Callable[[Any], Any]) -> None:
        """What another process had put into the cache is what the database holds after the write."""
        one, other = two
        one.create_session(session_id="s", user_id="ann", context={"a": 1}, available_at=PAST)
        one.checkpoint("s", "first")
        url = one.settings.database.url
        backdate(url, t.sessions, last_active_at=PAST, max_age_at=PAST)
        _read_by(other)
        before = cache_of(other).counts.hits
        _read_by(other)
        assert cache_of(other).counts.hits == before + 2
        change(one)
        with SessionManager.open(url) as plain:
            assert _read_by(other) == _read_by(plain)
            assert _read_by(one) == _read_by(plain)

    def test_after_a_release(self, two: tuple[Any, Any]) -> None:
        """Who holds a session is no beat: it is seen at once, and so is that nobody does."""
        one, other = two
        one.create_session(session_id="s")
        other.get_session("s")
        with one.lease("s", holder="h"):
            assert other.get_session("s").lease_holder == "h"
        assert other.get_session("s").lease_holder is None

    def test_a_beat_may_not_be_seen(self, two: tuple[Any, Any], valkey_server: ValkeyServer) -> None:
        """It drops nothing: for seconds the times that it moves are as they were, all else is right."""
        one, other = two
        one.create_session(session_id="s")
        epoch = one.acquire_lease("s", holder="h", ttl=10)
        seen = other.get_session("s")
        assert one.renew_leases([("", "s", epoch, 1000.0)], holder="h") == [("", "s", epoch)]
        with SessionManager.open(one.settings.database.url) as plain:
            now = plain.get_session("s")
        assert other.get_session("s") == seen
        (key,) = valkey_server.entries(b"s")
        assert 0 < valkey_server.ask("TTL", key) <= LEASED_SECONDS
        assert {name for name, value in seen if value != getattr(now, name)} <= {
            "last_active_at",
            "expires_at",
            "lease_expires_at",
        }

    @pytest.mark.parametrize("scope", ["", ALL])
    def test_a_sweep_is_seen_by_all(self, two: tuple[Any, Any], scope: Any) -> None:
        """Expiry and pruning of many, of one tenant or of all; what was not swept stays cached."""
        one, other = two
        url = one.settings.database.url
        names = [f"s{number}" for number in range(30)]
        for name in names:
            one.create_session(session_id=name, context={})
        backdate(url, t.sessions, expires_at=PAST)
        one.create_session(session_id="fresh", context={})
        _read_by(other, *names, "fresh")
        sweeper = one.for_tenant(scope)
        assert sweeper.expire_idle(batch=7).count == 30
        hits = cache_of(other).counts.hits
        assert other.get_session("fresh") is not None
        assert cache_of(other).counts.hits == hits + 1
        assert {other.get_session(name).state for name in names} == {"expired"}
        assert [other.load_state(name) for name in names] == [None] * 30
        backdate(url, t.sessions, prune_at=PAST)
        assert sweeper.prune_sessions(batch=7).count == 30
        assert [other.get_session(name) for name in names] == [None] * 30

    def test_an_approval_that_ran_out(self, two: tuple[Any, Any]) -> None:
        """Its sweep resumes a session: that is seen."""
        one, other = two
        one.create_session(session_id="s")
        one.request_approval("s", "go on?", suspend=True, expires_in=60)
        assert other.get_session("s").state == "suspended"
        backdate(one.settings.database.url, t.approvals, expires_at=PAST)
        assert one.for_tenant(ALL).expire_approvals().count == 1
        assert other.get_session("s").state == "active"

    def test_sub_sessions_of_sub_sessions(self, two: tuple[Any, Any]) -> None:
        """A delegation that ends takes with it what nobody named."""
        one, other = two
        one.create_session(session_id="top")
        for parent, name in (("top", "child"), ("child", "grandchild")):
            one.create_session(session_id=name, parent_id=parent)
        _read_by(other, "top", "child", "grandchild")
        one.cleanup_after_delegation("child")
        assert [other.get_session(name) and name for name in ("top", "child", "grandchild")] == ["top", None, None]

    def test_made_anew_under_its_id(self, two: tuple[Any, Any]) -> None:
        """Its version begins at 1 again, which is not taken for an old one, nor the old one for newer."""
        one, other = two
        one.create_session(session_id="s", title="old", context={"old": True})
        for step in range(5):
            one.save_state("s", step=step)
        _read_by(other)
        one.delete_session("s")
        assert _read_by(other) == [None, None]
        one.create_session(session_id="s", title="new", context={"new": True})
        for _ in range(2):
            assert other.get_session("s").title == "new"
            assert other.load_state("s").context == {"new": True}
        assert cache_of(other).counts.hits >= 2

    def test_hidden_and_brought_back(self, two: tuple[Any, Any]) -> None:
        """A soft deletion and its undoing are seen."""
        one, other = two
        one.create_session(session_id="s", context={})
        for _ in range(2):
            _read_by(other)
            one.delete_session("s", soft=True)
            assert _read_by(other) == [None, None]
            one.undelete_session("s")
            assert all(_read_by(other))


class TestSlowFills:
    """A read that was under way while others wrote."""

    @pytest.mark.parametrize("read", ["get_session", "load_state"])
    @pytest.mark.parametrize(
        "change",
        [
            lambda one: one.save_state("s", step=9),
            lambda one: one.delete_session("s"),
            lambda one: one.delete_session("s") and one.create_session(session_id="s", title="new", context={"new": 1}),
            lambda one: one.complete_session("s"),
        ],
    )
    def test_a_late_fill_is_refused(
        self, two: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any], read: str
    ) -> None:
        """Whatever happened since it read: a save, a deletion, a deletion and a new one of the same id, an end."""
        one, other = two
        one.create_session(session_id="s", title="old", context={})
        _between(other, monkeypatch, lambda: change(one))
        old = getattr(other, read)("s")
        assert (old.version, cache_of(other).counts.fills) == (1, 0)
        monkeypatch.undo()
        with SessionManager.open(one.settings.database.url) as plain:
            for _ in range(2):
                assert _read_by(other) == _read_by(plain)
                assert _read_by(one) == _read_by(plain)

    def test_one_token_lets_one_fill(self, valkey_server: ValkeyServer) -> None:
        """Of two that read under one token the first fills: the writer between their reads has yet to drop it."""
        stamp = "{:020d}{:020d}".format
        old, new = (b"E1" + stamp(version, 0).encode() + b"rest" for version in (9, 10))
        settings = Settings(database={"url": "sqlite:///x.db"}, cache={"url": valkey_server.url, "timeout": 5})
        cache = Cache(settings)
        for first, second in ((old, new), (new, old)):
            ask = commands.claim(b"sk", b"tk", None)
            token, *generations = cache.link.ask(Budget(5), ask)
            assert cache.link.ask(Budget(5), commands.claim(b"sk", b"tk", None)) == [token, *generations]
            assert cache.link.ask(Budget(5), commands.fill(b"sk", token, first, 60)) == 1
            assert cache.link.ask(Budget(5), commands.fill(b"sk", token, second, 60)) == 0
            assert cache.link.ask(Budget(5), commands.look(b"sk", b"tk"))[0] == first
            cache.link.ask(Budget(5), commands.drop((b"sk",)))
            assert cache.link.ask(Budget(5), commands.fill(b"sk", token, new, 60)) == 0
        cache.close()

    def test_a_sweep_over_everything_outdates_what_is_being_read(
        self, two: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The fill is taken, and believed by nobody."""
        one, other = two
        one.create_session(session_id="s")
        backdate(one.settings.database.url, t.sessions, max_age_at=PAST)
        _between(other, monkeypatch, one.apply_policies)
        assert other.get_session("s").max_age_at == PAST
        monkeypatch.undo()
        assert other.get_session("s").max_age_at is None


class TestConflicts:
    """A stale read is refused by the write's own condition, and the next read is fresh."""

    def test_a_retry_loop_converges(self, two: tuple[Any, Any]) -> None:
        """Even where a write went behind the cache's back."""
        one, other = two
        one.create_session(session_id="s", context={})
        stale = other.load_state("s")
        other.get_session("s")
        with SessionManager.open(one.settings.database.url) as plain:
            plain.save_state("s", step=7)
        assert other.load_state("s") == stale
        with pytest.raises(VersionConflict) as raised:
            other.save_state("s", step=8, expected_version=stale.version)
        assert (raised.value.expected, raised.value.current) == (stale.version, stale.version + 1)
        fresh = other.load_state("s")
        assert (fresh.step, fresh.version) == (7, stale.version + 1)
        other.save_state("s", step=8, expected_version=fresh.version)
        assert one.load_state("s").step == 8

    def test_who_takes_a_lease_begins_with_the_truth(self, two: tuple[Any, Any]) -> None:
        """Though the process before died between its commit and the cache."""
        one, other = two
        one.create_session(session_id="s", context={})
        other.load_state("s")
        with SessionManager.open(one.settings.database.url) as died:
            died.save_state("s", step=7)
        with other.lease("s"):
            assert other.load_state("s").step == 7

    def test_nothing_older_than_what_was_seen(self, two: tuple[Any, Any]) -> None:
        """An older entry that came back to the cache is not believed by a process that knows better."""
        one, other = two
        server_key = "l" + commands.key_of(b"", "", "s").decode()
        one.create_session(session_id="s", context={})
        one.load_state("s")
        link = cache_of(one).link
        old = link.ask(Budget(5), commands.look(server_key.encode(), b"t"))[0]
        for step in (1, 2):
            one.save_state("s", step=step)
            one.load_state("s")
        seen = other.load_state("s")
        prefix = link.take(1e9)
        whole = prefix.key_prefix + server_key.encode()
        link.give(prefix)
        rejected = cache_of(other).counts.rejected
        _put(one, whole, old)
        assert other.load_state("s") == seen
        assert cache_of(other).counts.rejected == rejected + 1
        _put(one, whole, old)
        assert one.load_state("s") == seen


class TestRaces:
    """Many at once."""

    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_no_reader_goes_back(self, url: str, valkey_server: ValkeyServer, kind: str) -> None:
        """Threads save and read three sessions through two caches: versions never sink, and what is acknowledged is seen."""
        names = ("a", "b", "c")
        acknowledged = dict.fromkeys(names, 1)
        guard = threading.Lock()
        with (
            opened(apart(url, valkey_server), kind) as one,
            opened(apart(url, valkey_server), kind) as other,
        ):
            for name in names:
                one.create_session(session_id=name, context={})
            done = threading.Event()

            def write(manager: Any, name: str) -> None:
                for step in range(40):
                    version = manager.save_state(name, step=step)
                    with guard:
                        acknowledged[name] = max(acknowledged[name], version)

            def read(manager: Any, name: str) -> int:
                seen = reads = 0
                while not done.is_set() or reads < 5:
                    floor = max(acknowledged[name], seen)
                    found = manager.load_state(name) if reads % 2 else manager.get_session(name)
                    assert found.version >= floor
                    seen, reads = found.version, reads + 1
                return reads

            with ThreadPoolExecutor(12) as pool:
                readers = [pool.submit(read, manager, name) for manager in (one, other) for name in names]
                writers = [pool.submit(write, manager, name) for manager in (one, other) for name in names]
                for writer in writers:
                    writer.result()
                done.set()
                assert all(reader.result() >= 5 for reader in readers)
            for manager in (one, other):
                for _ in range(2):
                    assert [manager.load_state(name).version for name in names] == [81] * 3
                assert cache_of(manager).counts.hits >= 3
                assert cache_of(manager).counts.failures == 0

    def test_a_killed_writer(self, url: str, valkey_server: ValkeyServer) -> None:
        """Another process saves as fast as it can and is killed: what it acknowledged is seen, at once and afterwards."""
        settings = apart(url, valkey_server)
        with SessionManager.open(settings) as reader, SessionManager.open(url) as plain:
            plain.create_session(session_id="s", context={})
            for _ in range(5):
                child = subprocess.Popen(
                    [sys.executable, "-c", _SAVES, settings.model_dump_json()], stdout=subprocess.PIPE, text=True,
                    cwd=Path(__file__).parents[2],
                )  # fmt: skip
                assert child.stdout is not None
                try:
                    acknowledged = 0
                    for _ in range(100):
                        acknowledged = int(child.stdout.readline())
                        state = reader.load_state("s")
                        assert state is not None
                        assert state.version >= acknowledged
                finally:
                    child.kill()
                    acknowledged = max([acknowledged, *map(int, child.stdout.read().split("\n")[:-1])])
                    child.wait()
                    child.stdout.close()
                state = reader.load_state("s")
                assert state is not None
                assert state.version >= acknowledged
                with reader.lease("s"):
                    assert reader.load_state("s") == plain.load_state("s")
            assert cache_of(reader).counts.failures == 0

    def test_a_cancelled_write_is_seen(self, migrated_postgres_url: str, valkey_server: ValkeyServer) -> None:
        """Its outcome is not known, so what it may have changed is dropped, though nobody waits for it."""

        async def go() -> None:
            valkey_server.ask("FLUSHALL")
            manager: Any
            async with AsyncSessionManager.open(apart(migrated_postgres_url, valkey_server)) as manager:
                await manager.create_session(session_id="s", context={})
                for _ in range(2):
                    await manager.load_state("s")
                with connected(migrated_postgres_url) as held:
                    held.execute(sa.update(t.sessions).values(title="held"))
                    save = asyncio.ensure_future(manager.save_state("s", step=1))
                    while not held.scalar(sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")):  # noqa: ASYNC110 - as below
                        await asyncio.sleep(0.01)
                    save.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await save
                cache = manager._driver.cache
                while valkey_server.entries():  # noqa: ASYNC110 - another process says so, and to no event
                    await asyncio.sleep(0.01)
                hits = cache.counts.hits
                await manager.load_state("s")
                assert cache.counts.hits == hits
                assert [set(keys) for _, keys in cache.outage._later] == [
                    {commands.key_of(kind, "", "s") for kind in (b"s", b"l")}
                ]

        asyncio.run(go())


_SAVES = """
import json, sys
from lifecycle import SessionManager, Settings
with SessionManager.open(Settings(**json.loads(sys.argv[1]))) as manager:
    while True:
        print(manager.save_state("s", append=[1]), flush=True)
"""


def _read_by(manager: Any, *names: str) -> list[Any]:
    """The sessions and their states."""
    return [read(name) for name in names or ("s",) for read in (manager.get_session, manager.load_state)]


def _between(manager: Any, monkeypatch: pytest.MonkeyPatch, change: Callable[[], Any]) -> None:
    """Have something happen between the next read of the database and the fill."""
    inner = manager._driver._inner
    run = inner.run

    def slow(operation: Any) -> Any:
        answer = run(operation)
        monkeypatch.setattr(inner, "run", run)
        change()
        return answer

    monkeypatch.setattr(inner, "run", slow)


def _put(manager: Any, key: bytes, value: bytes) -> None:
    """Write a value behind the cache's back."""
    import valkey

    with valkey.Valkey.from_url(str(manager.settings.cache.url)) as client:
        client.set(key, value)


def test_a_late_fill_of_an_earlier_life_is_refused(valkey_server: ValkeyServer) -> None:
    """A reader so slow that the session was deleted, made anew and read meanwhile fills nothing, newer as its version is."""

    def ask(command: commands.Ask) -> Any:
        return valkey_server.ask(*command.head, *command.keys, *command.tail)

    valkey_server.ask("FLUSHALL")
    key, generation = commands.key_of(b"s", "", "x"), commands.generation_of("")
    slow = ask(commands.claim(key, generation, None))[0]
    ask(commands.drop((key,)))
    quick = ask(commands.claim(key, generation, None))[0]
    first, second = (b"E1" + f"{version:020}{0:020}".encode() + b"rest" for version in (1, 10))
    assert ask(commands.fill(key, quick, first, 60)) == 1
    assert ask(commands.fill(key, slow, second, 60)) == 0
    assert valkey_server.ask("GET", key) == first
