"""The cache's own parts: its entries, what a write drops, the newest versions, the pauses, and its settings."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle import ConfigError, SessionManager, Settings
from lifecycle.cache import entries, outage, touched
from lifecycle.cache.commands import EVERYTHING, generation_of, key_of
from lifecycle.cache.links import CacheFailure, namespace_of, prefix
from lifecycle.cache.newest import GONE, Newest
from lifecycle.cache.outage import Outage
from lifecycle.models.reads import SavedState, Session
from lifecycle.operations import requests as r

NOW = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
GENERATIONS = b"0123456789abcdef" * 2


def session_row(**values: Any) -> dict[str, Any]:
    """A row as the database gives it."""
    row: dict[str, Any] = dict.fromkeys(Session.model_fields)
    row |= {name: NOW for name in row if name.endswith("_at")}
    row |= {
        "tenant": "t",
        "session_id": "é s",
        "kind": "chat",
        "state": "active",
        "metadata": '{"a":1e22}',
        "config": "{}",
    }
    row |= {"version": 7, "message_count": 0, "protected": False, "lease_epoch": 0, "attempts": 0, "rescues": 0}
    return row | {"runs": True, "pending_approvals": 0, "ended_at": None} | values


def state_row(**values: Any) -> dict[str, Any]:
    """A saved state as the database gives it."""
    row: dict[str, Any] = dict.fromkeys(SavedState.model_fields)
    row |= {
        "session_id": "s",
        "conversation": '["é\\u0000"]',
        "context": None,
        "plan": "",
        "version": 3,
        "saved_at": NOW,
    }
    return row | values


SESSION = r.GetSession("t", "é s")
STATE = r.LoadState("t", "s", False)


class TestEntries:
    """What is written is read back as it was, or not at all."""

    def test_a_session_comes_back(self) -> None:
        """Every column, in its order, times to the microsecond."""
        row = session_row()
        entry = entries.SessionForm.pack(SESSION, row, GENERATIONS)
        back = entries.read(entries.SessionForm, SESSION, entry, GENERATIONS)
        assert back == row
        assert list(back) == list(Session.model_fields)

    @given(texts=st.tuples(*[st.none() | st.text(st.characters(codec="utf-8"))] * 3))
    def test_a_state_comes_back(self, texts: tuple[str | None, ...]) -> None:
        """Documents are text, none or empty."""
        row = state_row(**dict(zip(("conversation", "context", "plan"), texts, strict=True)))
        entry = entries.StateForm.pack(STATE, row, GENERATIONS)
        assert entries.read(entries.StateForm, STATE, entry, GENERATIONS) == row

    @given(data=st.data())
    @settings(deadline=None)
    def test_whatever_is_changed_is_garbage(self, data: st.DataObject) -> None:
        """One byte changed, cut or added anywhere."""
        form, request, row = data.draw(
            st.sampled_from([(entries.SessionForm, SESSION, session_row()), (entries.StateForm, STATE, state_row())])
        )
        entry = form.pack(request, row, GENERATIONS)
        place = data.draw(st.integers(0, len(entry) - 1))
        byte = data.draw(st.integers(0, 255).filter(lambda one: one != entry[place]))
        changed = entry[:place] + bytes([byte]) + entry[place + 1 :]
        for broken in (changed, entry[:place], entry + bytes([byte])):
            assert entries.read(form, request, broken, GENERATIONS) in (None, row)
            if broken[74:82].lower() != entry[74:82]:  # a digit of the checksum in upper case is the same digit
                assert entries.read(form, request, broken, GENERATIONS) is None

    @given(garbage=st.binary() | st.binary().map(lambda tail: b"E1" + tail) | st.none() | st.integers())
    def test_garbage_is_none(self, garbage: Any) -> None:
        """Whatever it is, nothing is raised."""
        for form, request in ((entries.SessionForm, SESSION), (entries.StateForm, STATE)):
            assert entries.read(form, request, garbage, GENERATIONS) is None

    @pytest.mark.parametrize(
        "payload", [b"[]", b"{}", b"1", b"null", b"[" * 100_000, b"\xff\n", b"[1]\n", b'[1,"t"]\nx']
    )
    def test_well_sealed_nonsense_is_none(self, payload: bytes) -> None:
        """A checksum that fits does not make an entry of it."""
        sealed = entries._sealed(7, 0, GENERATIONS, payload)
        for form, request in ((entries.SessionForm, SESSION), (entries.StateForm, STATE)):
            assert entries.read(form, request, sealed, GENERATIONS) is None

    def test_an_entry_is_for_its_own_key(self) -> None:
        """Another session's, another tenant's, another kind's, another generation's is none."""
        entry = entries.SessionForm.pack(SESSION, session_row(), GENERATIONS)
        assert entries.read(entries.SessionForm, r.GetSession("t", "s"), entry, GENERATIONS) is None
        assert entries.read(entries.SessionForm, r.GetSession("", "é s"), entry, GENERATIONS) is None
        assert entries.read(entries.StateForm, r.LoadState("t", "é s", True), entry, GENERATIONS) is None
        assert entries.read(entries.SessionForm, SESSION, entry, b"f" * 32) is None

    def test_a_finished_sessions_state_is_for_who_asks_for_any(self) -> None:
        """What was read whatever the state is no answer to who wants a live session's; the other way round it is."""
        anyway = r.LoadState("t", "s", True)
        entry = entries.StateForm.pack(anyway, state_row(), GENERATIONS)
        assert entries.read(entries.StateForm, STATE, entry, GENERATIONS) is None
        assert entries.read(entries.StateForm, anyway, entry, GENERATIONS) == state_row()
        entry = entries.StateForm.pack(STATE, state_row(), GENERATIONS)
        assert entries.read(entries.StateForm, anyway, entry, GENERATIONS) == state_row()

    def test_a_newer_one_sorts_behind(self) -> None:
        """As text, which is how the server compares them: by version, then by activity."""
        older = entries.SessionForm.pack(SESSION, session_row(version=9), GENERATIONS)[2:42]
        active = entries.SessionForm.pack(
            SESSION, session_row(version=9, last_active_at=NOW.replace(hour=13)), GENERATIONS
        )
        newer = entries.SessionForm.pack(SESSION, session_row(version=10), GENERATIONS)[2:42]
        assert older < active[2:42] < newer


def every_request() -> set[type[r.Request]]:
    """All there are."""
    found: set[type[r.Request]] = set()
    left = [r.Request]
    while left:
        for kind in left.pop().__subclasses__():
            left.append(kind)
            if kind.__module__.startswith(r.__name__):
                found.add(kind)
    return found - {r.OfSession, r.Due}


class TestTouched:
    """Which entries a request drops."""

    def test_every_request_is_known(self) -> None:
        """A new one must say what it changes: until then it drops everything."""
        assert every_request() == set(touched._WRITES) | touched.HARMLESS
        assert not set(touched._WRITES) & touched.HARMLESS

        class New(r.Request):
            """Not known."""

        assert touched.touched(New(), None).keys == (EVERYTHING,)
        assert touched.possibly_touched(New()).keys == (EVERYTHING,)

    def test_a_message_leaves_the_state(self) -> None:
        """It changes the session's row only."""
        request = r.AddMessages("t", "s", (), None)
        assert touched.touched(request, [(1, NOW)]).keys == (key_of(b"s", "t", "s"),)

    def test_a_save_tells_its_version(self) -> None:
        """So that nothing older is believed; a refused one drops all the same, and tells nothing."""
        request = r.SaveState("t", "s", {}, None, None, {}, None, None, None)
        both = (key_of(b"s", "t", "s"), key_of(b"l", "t", "s"))
        assert touched.touched(request, 5) == touched.Touched(both, ((("t", "s"), 5),))
        assert touched.touched(request, None) == touched.Touched(both)

    def test_a_sweep_drops_what_it_swept(self) -> None:
        """By key where the answer tells them, else by the generation of whom it was for."""
        due = r.Due(None, "expire_idle")
        answer = r.SweptIds([("t", "s"), ("u", "s")])
        assert answer == ["s", "s"]
        keys = touched.touched(r.SweepBatch(due, 9, None, None), answer).keys
        assert set(keys) == {key_of(kind, tenant, "s") for kind in (b"s", b"l") for tenant in "tu"}
        assert touched.touched(r.SweepBatch(due, 9, None, None), ["s"]).keys == (EVERYTHING,)
        own = r.SweepBatch(r.Due("t", "prune_sessions"), 9, None, None)
        assert touched.possibly_touched(own).keys == (generation_of("t"),)
        assert touched.touched(own, r.SweptIds([])) == touched.NOTHING

    def test_descendants_outdate_the_tenant(self) -> None:
        """Their ids are not told; where there were none, the session alone is dropped."""
        request = r.DeleteSessions((("t", "s"),), None, None, False, descendants=True)
        assert generation_of("t") in touched.touched(request, 2).keys
        assert generation_of("t") not in touched.touched(request, 1).keys


class TestNewest:
    """What this process has seen."""

    def test_the_database_has_the_last_word(self) -> None:
        """A session made anew under its id begins at version 1 again."""
        newest = Newest()
        newest.learn(b"k", None, 7)
        newest.learn(b"k", 7, 1)
        assert newest.get(b"k") == 1
        newest.learn(b"k", 1, None)
        assert newest.get(b"k") == GONE
        newest.learn(b"k", GONE, 1)
        assert newest.get(b"k") == 1

    def test_a_slow_reader_takes_nothing_back(self) -> None:
        """What was learnt while it read stays."""
        newest = Newest()
        newest.learn(b"k", None, 7)
        before = newest.get(b"k")
        newest.learn(b"k", 7, 8)
        newest.learn(b"k", before, 7)
        newest.saw(b"k", 6)
        assert newest.get(b"k") == 8

    def test_it_does_not_grow(self) -> None:
        """The longest unchanged is forgotten."""
        newest = Newest(size=2)
        for name in (b"a", b"b", b"c"):
            newest.saw(name, 1)
        assert [newest.get(name) for name in (b"a", b"b", b"c")] == [None, 1, 1]


def test_the_pauses_grow_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is twice the one before, up to a bound, until there was no failure for a while."""
    now = [1000.0]
    monkeypatch.setattr(outage, "clock", lambda: now[0])
    pauses = outage.Pauses()
    taken = []
    for _ in range(9):
        taken.append(pauses.after_failure())
        now[0] += taken[-1]
    assert taken == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    now[0] += 60
    assert pauses.after_failure() == 0.1


def test_what_is_owed_is_dropped_before_the_cache_is_used(caplog: pytest.LogCaptureFixture) -> None:
    """Also what came to be owed while the rest was being dropped; one event when it began, one when it ended."""
    caplog.set_level("INFO")
    dropped: list[tuple[bytes, ...]] = []

    def repair(keys: tuple[bytes, ...]) -> None:
        assert not tried.over
        if len(dropped) == 1:
            tried.owe([b"c"])
        dropped.append(keys)
        if len(dropped) == 1:
            raise CacheFailure("not yet")

    tried = Outage("valkey://here", repair)
    tried.failed(CacheFailure("gone"), [b"a"])
    tried.failed(CacheFailure("gone"), [b"b"])
    with tried._changed:
        pass
    while not tried.over:
        with tried._changed:
            tried._changed.wait(0.01)
    tried.close()
    assert [set(keys) for keys in dropped] == [{b"a", b"b"}, {b"a", b"b"}, {b"c"}]
    assert [record.msg["event"] for record in caplog.records] == ["cache_unavailable", "cache_recovered"]  # type: ignore[index]


class TestSettings:
    """The section `cache`."""

    def test_there_is_none_unless_it_is_named(self) -> None:
        """The default is the database alone."""
        assert Settings().cache.url is None
        with SessionManager.open("sqlite://") as manager:
            assert not hasattr(manager._driver, "cache")

    @pytest.mark.parametrize(
        ("values", "key", "says"),
        [
            ({"url": "memcached://h"}, "cache.url", "valkey://"),
            ({"url": ""}, "cache.url", "valkey://"),
            ({"url": "localhost:6379"}, "cache.url", "unix://"),
            ({"timeout": 0}, "cache.timeout", "greater than 0"),
            ({"timeout": True}, "cache.timeout", "must be a number"),
            ({"ttl": "never"}, "cache.ttl", "never is not allowed"),
            ({"namespace": ""}, "cache.namespace", "at least 1 character"),
            ({"max_byte": 1}, "cache.max_byte", "did you mean max_bytes"),
        ],
    )
    def test_a_wrong_one(self, values: dict[str, Any], key: str, says: str) -> None:
        """The error names the key and what is allowed."""
        with pytest.raises(ConfigError) as raised:
            Settings(cache=values)
        assert raised.value.key == key
        assert says in raised.value.problem

    @pytest.mark.parametrize(
        "url", ["valkey://h/0?what=1", "valkey://h:port", "redis://h?db=x", "rediss://h?ssl_cert_reqs=x"]
    )
    def test_a_url_that_makes_no_connection(self, url: str, tmp_path: Any) -> None:
        """It is refused when a manager is opened, before anything is asked of it."""
        with pytest.raises(ConfigError) as raised:
            SessionManager.open(Settings(database={"url": f"sqlite:///{tmp_path}/a.db"}, cache={"url": url}))
        assert raised.value.key == "cache.url"

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("valkey://me:hunter2@h:6379/0", "valkey://me:***@h:6379/0"),
            ("rediss://:hunter2@h", "rediss://:***@h"),
            ("unix:///run/valkey.sock?password=hunter2&db=1", "unix:///run/valkey.sock?password=***&db=1"),
        ],
    )
    def test_no_password_is_shown(self, url: str, shown: str) -> None:
        """The rest of the URL is."""
        redacted = Settings(cache={"url": url}).redacted()
        assert redacted["cache"]["url"] == shown
        assert "hunter2" not in json.dumps(redacted)


class TestNamespaces:
    """Which processes share entries."""

    def test_a_database_is_told_by_where_it_is(self) -> None:
        """Not by who connects, nor by how; another database is another one."""
        settings = Settings().cache

        def name(url: str) -> str:
            return namespace_of(settings, url)

        same = {name(f"postgresql{driver}://{who}h{port}/db{how}") for driver in ("", "+psycopg")
                for who in ("", "a:b@") for port in ("", ":5432") for how in ("", "?sslmode=require")}  # fmt: skip
        assert len(same) == 1
        assert name("mysql://h/db") == name("mariadb://h/db")
        others = {name(f"postgresql://{rest}") for rest in ("h/db", "h/other", "i/db", "h:6000/db", "/db?host=/run")}
        assert len(others) == 5
        assert name("sqlite:///a.db") != name("sqlite:///b.db")

    def test_a_name_of_its_own(self) -> None:
        """Processes that write the URL differently name the database alike."""
        named = Settings(cache={"namespace": "prod"}).cache
        assert namespace_of(named, "postgresql://h/db") == namespace_of(named, "postgresql://pooler:6432/db")

    def test_the_servers_run_is_part_of_it(self) -> None:
        """What another run of the server left is not read; a server that does not tell is not used."""
        info = b"# Server\r\nvalkey_version:9.1\r\nrun_id:0123456789abcdef0123\r\n"
        assert prefix("name", info) == b"lifecycle:name:0123456789abcdef:"
        for wrong in (b"", b"run_id:\r\n", None, 5):
            with pytest.raises(CacheFailure, match="run_id"):
                prefix("name", wrong)
