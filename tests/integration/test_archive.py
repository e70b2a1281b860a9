"""What is removed is in the archive first, as it was; and what is in the archive can be brought back."""

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lifecycle import ALL, SessionManager, Settings
from lifecycle.archive.batch import Batch
from lifecycle.archive.restoring import restore
from lifecycle.archive.store import Archive
from lifecycle.errors import (
    ConfigError,
    FileUnavailable,
    InvalidFile,
    LifecycleError,
    NotFound,
    SessionExists,
    SessionNotFound,
    StorageUnavailable,
)
from lifecycle.models import tables as t
from lifecycle.transfer.importing import import_sessions
from lifecycle.transfer.rows import TABLES, columns
from lifecycle.upkeep import Upkeep
from tests.managers import backdate, opened
from tests.populations import connected, digests, populate
from tests.wire import CountingProxy

DATABASES = ("sqlite", "postgres", "postgres15", "mariadb")
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest) -> str:
    """A database of each kind, with the schema and no rows."""
    return str(request.getfixturevalue(f"migrated_{request.param}_url"))


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """An archive that does not exist yet."""
    return Archive(tmp_path / "archive")


def settings(url: str, archive: Archive, **more: Any) -> Settings:
    """Settings with an archive."""
    return Settings(database={"url": url}, archive={"directory": str(archive.directory), **more})


def rows_of(url: str) -> dict[str, list[dict[str, Any]]]:
    """All rows of every session that is there, by its key and table, without the audit log's transaction."""
    found: dict[str, list[dict[str, Any]]] = {}
    with connected(url) as connection:
        for table in TABLES.values():
            order = [column.name for column in table.primary_key]
            for row in connection.execute(sa.select(*columns(table)).order_by(*order)).mappings():
                found.setdefault(f"{row['tenant']}/{row['session_id']}", []).append({"table": table.name, **row})
    return {key: rows for key, rows in found.items() if rows[0]["table"] == "sessions"}


def archived_rows(archive: Archive) -> dict[str, list[dict[str, Any]]]:
    """The same of what is in the archive."""
    return {
        f"{entry.tenant}/{entry.session_id}": [{"table": line.name, **line.row} for line in archive.lines(entry)]
        for entry in archive.entries()
    }


def canonical(rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[str]]:
    """Rows to be compared: a session's in the order of tables and keys."""
    return {key: sorted(repr(sorted(row.items())) for row in own) for key, own in rows.items()}


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_what_is_pruned_is_in_the_archive(url: str, archive: Archive, kind: str, compression: str) -> None:
    """Each session with every row of every table, once, of all tenants; the numbers are those of the dry run."""
    populate(url, 120, 4)
    backdate(url, t.sessions, ended_at=None, state="active", protected=False, prune_at=None, deleted_at=None)
    backdate(url, t.sessions, ended_at=LONG_AGO, state="completed", prune_at=LONG_AGO)
    before = canonical(rows_of(url))
    with opened(settings(url, archive, compression=compression), kind) as manager:
        everybody = manager.for_tenant(ALL)
        planned = everybody.prune_sessions(dry_run=True)
        report = everybody.prune_sessions(batch=50)
        assert (planned.count, report.count, report.batches) == (120, 120, 3)
        assert everybody.list_sessions(limit=1).items == []
    assert canonical(archived_rows(archive)) == before
    assert len(archive.files()) == 3


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_every_way_to_remove_for_good_archives(url: str, archive: Archive, kind: str) -> None:
    """One session, ghosts, sub-sessions; hiding one does not."""
    with opened(settings(url, archive), kind) as manager:
        for name in ("one", "hidden", "ghost"):
            manager.create_session(session_id=name)
        manager.create_session(session_id="child", parent_id="one")
        manager.create_session(session_id="grandchild", parent_id="child")
        manager.delete_session("hidden", soft=True)
        assert not archive.directory.exists()
        manager.cleanup_after_delegation("child", actor="me")
        manager.delete_session("one", actor="me")
        backdate(url, t.sessions, ghost_at=LONG_AGO)
        manager.delete_ghosts()
        assert manager.delete_session("nobody") is False
    found = [(entry.session_id, entry.reason, entry.actor) for entry in archive.entries()]
    assert sorted(found) == [
        ("child", "delegation finished", "me"), ("ghost", "ghost", None), ("grandchild", "delegation finished", "me"),
        ("one", None, "me"),
    ]  # fmt: skip
    assert len(archive.files()) == 3


def test_sessions_of_any_size(url: str, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those too large to be read together are read one by one and page by page, and are as whole."""
    from lifecycle.recipes import archiving

    monkeypatch.setattr(archiving, "_CHARS", 2000)
    monkeypatch.setattr(archiving, "_FIRST_PAGE", 2)
    monkeypatch.setattr(archiving, "_FIRST_DOCUMENTS", 1)
    monkeypatch.setattr(archiving, "_LONGEST_PAGE", 4)
    monkeypatch.setattr(archiving, "_SMALL_PAGE", 700)
    monkeypatch.setattr(archiving, "_MESSAGES", 30)
    populate(url, 30, 11)
    with SessionManager.open(url) as manager:
        manager.create_session(session_id="lone", context={})
        for number in range(9):
            manager.checkpoint("lone", f"c{number}", {"n": "x" * number * 100})
    backdate(url, t.sessions, ended_at=LONG_AGO, state="completed", prune_at=LONG_AGO, protected=False)
    before = canonical(rows_of(url))
    with SessionManager.open(settings(url, archive), tenant=ALL) as manager:
        assert manager.prune_sessions().count == 31
    assert canonical(archived_rows(archive)) == before


def test_the_archive_is_an_export(url: str, archive: Archive) -> None:
    """`import` stores a file of it."""
    populate(url, 40, 3)
    backdate(url, t.sessions, ended_at=LONG_AGO, state="completed", prune_at=LONG_AGO, protected=False)
    before = digests(url)
    with SessionManager.open(settings(url, archive), tenant=ALL) as manager:
        manager.prune_sessions()
        with connected(url) as connection:  # the lines on the removal
            connection.execute(sa.delete(t.transitions).where(t.transitions.c.to_state.is_(None)))
        (file,) = archive.files()
        import_sessions(url, str(file))
    after = digests(url)
    assert {name for name in after if after[name] != before[name]} == {"session_transitions"}


def full_disk(batch: Batch, *_: Any, **__: Any) -> None:
    """Fail as a full disk does."""
    raise FileUnavailable(f"cannot write {batch}: No space left on device")


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("step", ["open", "begin", "commit"])
def test_what_cannot_be_archived_stays(
    url: str, archive: Archive, kind: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep removes nothing and says why; when there is room again, it goes on."""
    with opened(settings(url, archive), kind) as manager:
        for number in range(5):
            manager.create_session(session_id=f"s{number}", context={"n": number})
            manager.complete_session(f"s{number}")
        backdate(url, t.sessions, prune_at=LONG_AGO)
        with monkeypatch.context() as patch:
            owner: Any = Archive if step == "open" else Batch
            patch.setattr(owner, "begin" if step == "open" else step, full_disk)
            with pytest.raises(FileUnavailable, match="No space left"):
                manager.prune_sessions()
            with pytest.raises(FileUnavailable, match="No space left"):
                manager.delete_session("s1")
        assert len(manager.list_sessions().items) == 5
        assert [path for path in archive.directory.rglob("*") if path.is_file()] == []
        assert manager.prune_sessions().count == 5
    assert len(list(archive.entries())) == 5


def test_a_directory_that_cannot_be_written(url: str, tmp_path: Path) -> None:
    """It is in the place of a file, or below what is not there: said at once, or when something is to be removed."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"archive\.directory"):
        settings(url, Archive(tmp_path / "file"))
    for directory in (tmp_path / "file" / "below", Path("/proc/nowhere")):
        with SessionManager.open(settings(url, Archive(directory))) as manager:
            manager.open_session("a")
            with pytest.raises(FileUnavailable, match="cannot write"):
                manager.delete_session("a")
            assert manager.get_session("a") is not None


def test_the_worker_goes_on(migrated_sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A job whose archive is full reports it, in the log and in `worker_jobs`; the others run."""
    broken = settings(migrated_sqlite_url, Archive(Path("/proc/nowhere")))
    with SessionManager.open(broken, tenant=ALL) as manager:
        manager.for_tenant("").create_session(session_id="a")
        manager.for_tenant("").complete_session("a")
        backdate(migrated_sqlite_url, t.sessions, prune_at=LONG_AGO)
        upkeep = Upkeep(manager)
        upkeep._tick("prune_sessions")
        upkeep._tick("expire_idle")
        assert not upkeep.outage.waiting
        jobs = {row["job"]: row["last_error"] for row in manager.list_workers()["jobs"]}
        assert "cannot write /proc/nowhere" in jobs["prune_sessions"]
        assert jobs["expire_idle"] is None
        assert manager.for_tenant("").get_session("a") is not None
    failed = [record.msg for record in caplog.records if record.msg["event"] == "sweep_failed"]  # type: ignore[index]
    assert len(failed) == 1
    assert "exc_info" not in failed[0]


@contextlib.contextmanager
def held_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Stop each batch when it is on the disk and nothing is removed yet: events for when it is there, and to let it on."""
    written, go_on = threading.Event(), threading.Event()
    commit = Batch.commit

    def wait(batch: Batch) -> None:
        commit(batch)
        written.set()
        assert go_on.wait(60)

    monkeypatch.setattr(Batch, "commit", wait)
    yield written, go_on
    go_on.set()


@pytest.mark.parametrize("write", ["add_message", "save_state", "open_connection", "resume_session", "checkpoint"])
def test_nothing_comes_between_the_archive_and_the_removal(
    url: str, archive: Archive, write: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes to a session that is on its way out waits, and finds it gone: no row that is not in the archive."""
    calls: dict[str, Any] = {
        "add_message": lambda m: m.add_message("a", "user", "late"),
        "save_state": lambda m: m.save_state("a", context={"late": 1}, token="late"),
        "open_connection": lambda m: m.open_connection("a", connection_id="late"),
        "resume_session": lambda m: m.suspend_session("a"),
        "checkpoint": lambda m: m.checkpoint("a", "late"),
    }
    outcome: list[object] = []
    with (
        SessionManager.open(url) as writer,
        SessionManager.open(settings(url, archive)) as sweeper,
        held_up(monkeypatch) as (written, go_on),
    ):
        writer.create_session(session_id="a", context={"n": 1})
        backdate(url, t.sessions, last_active_at=LONG_AGO, listed_at=LONG_AGO)
        before = canonical(rows_of(url))

        def prune() -> None:
            outcome.append(sweeper.prune_sessions(older_than="1h", states=["active"]).count)

        def interfere() -> None:
            try:
                calls[write](writer)
                outcome.append("written")
            except (LifecycleError, LookupError) as error:
                outcome.append(type(error))

        threads = [threading.Thread(target=prune), threading.Thread(target=interfere)]
        threads[0].start()
        assert written.wait(60)
        threads[1].start()
        threads[1].join(0.2)
        assert outcome == []
        go_on.set()
        for thread in threads:
            thread.join(60)
        assert set(outcome) == {1, SessionNotFound}
    assert canonical(archived_rows(archive)) == before
    with connected(url) as connection:
        left = {
            table.name: connection.scalar(sa.select(sa.func.count()).select_from(table)) for table in TABLES.values()
        }
    assert left == dict.fromkeys(left, 0) | {"session_transitions": 1}


def test_two_sweeps_at_once_archive_each_session_once(migrated_postgres_url: str, archive: Archive) -> None:
    """Each passes over what the other has locked."""
    populate(migrated_postgres_url, 300, 1)
    backdate(
        migrated_postgres_url, t.sessions, ended_at=LONG_AGO, state="completed", prune_at=LONG_AGO, protected=False
    )
    counts: list[int] = []
    with SessionManager.open(settings(migrated_postgres_url, archive), tenant=ALL) as manager:
        threads = [
            threading.Thread(target=lambda: counts.append(manager.prune_sessions(batch=20).count)) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts.append(manager.prune_sessions().count)
    keys = [entry.key for entry in archive.entries()]
    assert (sum(counts), len(keys), len(set(keys))) == (300, 300, 300)


def test_a_deadlock_that_is_tried_again_leaves_one_file(
    migrated_postgres_url: str, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written for the transaction that was rolled back is taken back."""
    from lifecycle.drivers.stepping import Aborted

    failures = [Aborted("deadlock")]
    commit = Batch.commit

    def fail_once(batch: Batch) -> None:
        commit(batch)
        if failures:
            raise failures.pop()

    monkeypatch.setattr(Batch, "commit", fail_once)
    with SessionManager.open(settings(migrated_postgres_url, archive)) as manager:
        manager.create_session(session_id="a")
        assert manager.delete_session("a")
    assert [entry.session_id for entry in archive.entries()] == ["a"]
    assert len([path for path in archive.directory.rglob("*") if path.is_file()]) == 2


def test_without_an_archive_nothing_is_asked_more_often(migrated_postgres_url: str, archive: Archive) -> None:
    """The sweep takes as many round trips as ever; with one, it takes more."""
    counted, taken = [], 0
    with CountingProxy(migrated_postgres_url) as proxy:
        for section in ({}, {"archive": {"directory": str(archive.directory)}}):
            chosen = proxy.settings.model_copy(update={"archive": Settings(**section).archive})
            with SessionManager.open(chosen) as manager:
                for name in ("first", "second"):
                    manager.create_session(session_id=name)
                    manager.complete_session(name)
                    backdate(migrated_postgres_url, t.sessions, prune_at=LONG_AGO)
                    before = proxy.round_trips
                    manager.prune_sessions(budget=0.0)
                    taken = proxy.round_trips - before
                counted.append(taken)
    # Two reads of the oldest with their clock, then BEGIN, the clock, the choice, the removal from every table, COMMIT.
    assert counted[0] == 9
    assert counted[1] > counted[0]


class TestRestoring:
    """`restore`."""

    def removed(self, url: str, archive: Archive, **values: Any) -> SessionManager:
        """A manager on a database from which session `a` was pruned."""
        manager = SessionManager.open(settings(url, archive))
        manager.create_session(session_id="a", context={"n": 1}, user_id="u", **values)
        manager.add_messages("a", [{"role": "user", "content": "hello"}, {"role": "assistant", "content": ["parts"]}])
        manager.complete_session("a")
        backdate(url, t.sessions, prune_at=LONG_AGO)
        assert manager.prune_sessions().count == 1
        return manager

    def test_a_session_comes_back(self, url: str, archive: Archive) -> None:
        """With all it owned; it is kept as long as one that ends now, and its history tells what happened."""
        with self.removed(url, archive) as manager:
            entry = archive.find("", "a")
            restore(url, archive, entry, manager.settings.policy_set, actor="me")
            found = manager.get_session("a")
            assert found is not None
            assert (found.state, found.user_id, found.message_count) == ("completed", "u", 2)
            assert [message.content for message in manager.get_messages("a")] == ["hello", ["parts"]]
            state = manager.load_state("a", any_state=True)
            assert state is not None
            assert state.context == {"n": 1}
            lines = manager.history("a")
            assert sorted((line.seq, line.trigger) for line in lines) == [
                (1, "create"), (4, "complete"), (5, "delete"), (6, "restore"),
            ]  # fmt: skip
            assert [line.actor for line in lines if line.trigger == "restore"] == ["me"]
            assert manager.prune_sessions().count == 0
            with connected(url) as connection:
                prune_at = connection.scalar(sa.select(t.sessions.c.prune_at))
            assert prune_at is not None
            assert prune_at - datetime.now(UTC) > timedelta(days=29)
            with pytest.raises(SessionExists):
                restore(url, archive, entry, manager.settings.policy_set)

    def test_it_can_be_worked_on_and_removed_again(self, url: str, archive: Archive) -> None:
        """Numbers go on where they were; of several copies the newest is the one."""
        with SessionManager.open(settings(url, archive)) as manager:
            manager.create_session(session_id="a")
            for number in range(3):
                manager.add_message("a", "user", str(number))
                manager.delete_session("a")
                restore(url, archive, archive.find("", "a"), manager.settings.policy_set)
            assert [message.content for message in manager.get_messages("a")] == ["0", "1", "2"]
            sequence = [line.seq for line in manager.history("a")] + [m.seq for m in manager.get_messages("a")]
            assert len(set(sequence)) == len(sequence)
        assert len(list(archive.entries(session_id="a"))) == 3

    def test_a_hidden_one_is_shown_again(self, migrated_sqlite_url: str, archive: Archive) -> None:
        """It was removed because it was hidden; whoever brings it back wants to see it."""
        with SessionManager.open(settings(migrated_sqlite_url, archive)) as manager:
            manager.create_session(session_id="a")
            manager.delete_session("a", soft=True)
            backdate(migrated_sqlite_url, t.sessions, prune_at=LONG_AGO)
            assert manager.prune_sessions().count == 1
            restore(migrated_sqlite_url, archive, archive.find("", "a"), manager.settings.policy_set)
            assert manager.get_session("a") is not None
            assert manager.prune_sessions().count == 0

    def test_no_lease_from_before_is_good(self, migrated_sqlite_url: str, archive: Archive) -> None:
        """Nor does anybody hold it."""
        with SessionManager.open(settings(migrated_sqlite_url, archive)) as manager:
            manager.create_session(session_id="a")
            before = manager.acquire_lease("a", holder="me", ttl=60)
            manager.delete_session("a", force=True)
            restore(migrated_sqlite_url, archive, archive.find("", "a"), manager.settings.policy_set)
            assert manager.acquire_lease("a", holder="you", ttl=60) > before

    def test_what_is_not_there(self, migrated_sqlite_url: str, archive: Archive) -> None:
        """Neither in the archive nor a directory, or another tenant's."""
        with pytest.raises(FileUnavailable, match="no such directory"):
            archive.find("", "a")
        with self.removed(migrated_sqlite_url, archive):
            for tenant, session_id in (("", "b"), ("other", "a")):
                with pytest.raises(NotFound, match="in the archive"):
                    archive.find(tenant, session_id)


class TestFiles:
    """What an archive withstands."""

    @pytest.fixture
    def three(self, migrated_sqlite_url: str, archive: Archive) -> Path:
        """A file with three sessions."""
        with SessionManager.open(settings(migrated_sqlite_url, archive)) as manager:
            for name in ("a", "b", "c"):
                manager.create_session(session_id=name, user_id=f"user {name}", context={"name": name})
                manager.add_message(name, "user", f"I am {name}")
                manager.complete_session(name)
            backdate(migrated_sqlite_url, t.sessions, prune_at=LONG_AGO)
            assert manager.prune_sessions().count == 3
        (file,) = archive.files()
        return file

    def test_a_file_cut_anywhere_in_its_last_session(self, three: Path, archive: Archive) -> None:
        """At every byte: the sessions before it are read, and it is said of the last one that it is not whole."""
        data = three.read_bytes()
        blocks = [place for place in range(len(data)) if data.startswith(b'{"block"', place)]
        last_starts = data.index(b"\n", blocks[1]) + 1
        last_ends = data.index(b"\n", blocks[2]) + 1
        index = three.with_name(three.name + ".index")
        kept = index.read_bytes()
        for cut in range(last_starts, len(data)):
            three.write_bytes(data[:cut])
            index.unlink(missing_ok=True)
            expected = ["c", "b", "a"] if cut >= last_ends else ["b", "a"]
            assert [entry.session_id for entry in archive.entries()] == expected
            index.write_bytes(kept)
            for name in ("a", "b"):
                rows = [line.name for line in archive.lines(archive.find("", name))]
                assert rows == ["sessions", "session_states", "session_messages", *["session_transitions"] * 2]
            if cut < last_ends:
                with pytest.raises(InvalidFile):
                    list(archive.lines(archive.find("", "c")))

    @pytest.mark.parametrize("compression", ["gzip", "zstd"])
    def test_a_packed_file_that_is_cut(self, migrated_sqlite_url: str, archive: Archive, compression: str) -> None:
        """Every session before the place is read: each was flushed by itself."""
        chosen = settings(migrated_sqlite_url, archive, compression=compression)
        with SessionManager.open(chosen) as manager:
            for number in range(20):
                manager.create_session(session_id=f"s{number:02}", context={"noise": os.urandom(500).hex()})
                manager.complete_session(f"s{number:02}")
            backdate(migrated_sqlite_url, t.sessions, prune_at=LONG_AGO)
            manager.prune_sessions()
        (file,) = archive.files()
        file.with_name(file.name + ".index").unlink()
        data = file.read_bytes()
        counts = []
        for cut in range(len(data) // 3, len(data), 97):
            file.write_bytes(data[:cut])
            counts.append(len(list(archive.entries())))
        assert counts == sorted(counts)
        assert 5 <= counts[0] < counts[-1] <= 20
        assert len(set(counts)) > 10

    def test_an_index_that_is_lost_or_damaged(self, three: Path, archive: Archive) -> None:
        """The file itself tells."""
        index = three.with_name(three.name + ".index")
        whole = [entry.as_dict() for entry in archive.entries()]
        for damage in (b"", b"garbage\n", index.read_bytes()[:-1], index.read_bytes().replace(b'"state"', b'"stat"')):
            index.write_bytes(damage)
            if damage:
                assert [entry.as_dict() for entry in archive.entries()] == whole
        index.unlink()
        assert [entry.as_dict() for entry in archive.entries()] == whole

    def test_other_files_are_left_alone(self, three: Path, archive: Archive) -> None:
        """What a killed process left, and what somebody put there."""
        three.with_name(f".{three.name}.1-ab.tmp").write_bytes(three.read_bytes())
        three.with_name("notes.txt").write_text("mine")
        (archive.directory / "elsewhere.jsonl").write_text("mine")
        assert archive.files() == [three]

    def test_a_user_is_erased(self, three: Path, migrated_sqlite_url: str, archive: Archive) -> None:
        """From every file, and the rest of it stays as it is; one with nothing left is removed. A repeat is harmless."""
        with SessionManager.open(settings(migrated_sqlite_url, archive)) as manager:
            manager.create_session(session_id="more", user_id="user b")
            manager.delete_session("more")
            manager.create_session(session_id="live", user_id="user b")
            rest = {name: list(archive.lines(archive.find("", name))) for name in ("a", "c")}
            assert manager.delete_user("user b") == 1
            assert manager.delete_user("user b") == 0
            assert sorted(entry.session_id for entry in archive.entries()) == ["a", "c"]
            after = {name: list(archive.lines(archive.find("", name))) for name in ("a", "c")}
            assert [line.row for line in after["c"]] == [line.row for line in rest["c"]]
            assert [line.row for line in after["a"]] == [line.row for line in rest["a"]]
            assert b"user b" not in b"".join(
                path.read_bytes() for path in archive.directory.rglob("*") if path.is_file()
            )
            assert archive.files() == [three]
            three.write_bytes(three.read_bytes()[:-100])
            with pytest.raises(InvalidFile):
                manager.delete_user("user a")

    def test_listing(self, three: Path, archive: Archive) -> None:
        """By what the index says."""
        assert [entry.session_id for entry in archive.entries(user_id="user b")] == ["b"]
        assert [entry.session_id for entry in archive.entries(session_id="b", tenant="")] == ["b"]
        assert list(archive.entries(kind="cron")) == []
        assert list(archive.entries(tenant="other")) == []
        assert list(archive.entries(since=datetime.now(UTC) + timedelta(hours=1))) == []
        assert list(archive.entries(until=datetime.now(UTC) - timedelta(hours=1))) == []
        header = json.loads(three.read_bytes().splitlines()[0])["lifecycle"]
        assert header["removed"]["reason"] == "pruned"


def test_the_database_may_fail_after_the_archive(
    migrated_sqlite_url: str, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is then in both, or only where it was; a repeat removes it."""
    from lifecycle.drivers.sqlite import SqliteDriver

    with SessionManager.open(settings(migrated_sqlite_url, archive)) as manager:
        manager.create_session(session_id="a")
        with monkeypatch.context() as patch:

            def fail(*_: object) -> None:
                raise StorageUnavailable("the disk is gone")

            patch.setattr(SqliteDriver, "_commit", fail)
            with pytest.raises(StorageUnavailable):
                manager.delete_session("a")
        assert manager.get_session("a") is not None
        assert manager.delete_session("a")
    assert {entry.session_id for entry in archive.entries()} == {"a"}
