"""Export and import as functions: what an export sees, and what an import refuses, on each database."""

import json
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from lifecycle import SessionManager, migrate
from lifecycle.errors import FileUnavailable, InvalidArgument, InvalidFile, SchemaOutdated, SessionExists
from lifecycle.transfer import files, importing
from lifecycle.transfer.exporting import export_sessions
from lifecycle.transfer.importing import import_sessions
from lifecycle.transfer.plain import read_plain
from lifecycle.transfer.rows import TABLES, decode, decode_line
from lifecycle.transfer.selection import Selection
from tests.populations import digests, populate

DATABASES = ("sqlite", "postgres", "postgres15", "mariadb")
SESSIONS, MESSAGES = 60, 3


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest) -> str:
    """A database of each kind that a digest can be taken of, with the schema and no rows."""
    return str(request.getfixturevalue(f"migrated_{request.param}_url"))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SQLite database full of everything."""
    made = f"sqlite:///{tmp_path_factory.mktemp('full') / 'full.db'}"
    migrate.upgrade(made)
    populate(made, SESSIONS, MESSAGES)
    return made


@pytest.fixture(scope="module")
def exported(full: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of it."""
    file = tmp_path_factory.mktemp("exported") / "full.jsonl"
    export_sessions(full, str(file))
    return file


def objects(file: Path) -> list[dict[str, Any]]:
    """The lines of a file."""
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def changed(exported: Path, tmp_path: Path, change: Callable[[list[bytes]], object]) -> Path:
    """A copy of the export with its lines changed."""
    lines = exported.read_bytes().splitlines(keepends=True)
    change(lines)
    file = tmp_path / "changed.jsonl"
    file.write_bytes(b"".join(lines))
    return file


def refused(url: str, file: Path, **options: Any) -> InvalidFile:
    """The error that importing a file raises; a dry run raises the same, and nothing was written."""
    found = []
    for dry_run in (True, False):
        with pytest.raises(InvalidFile) as raised:
            import_sessions(url, str(file), dry_run=dry_run, **options)
        found.append(raised.value)
    assert str(found[0]) == str(found[1])
    with SessionManager.open(url, tenant="") as manager:
        assert manager.list_sessions(limit=1).items == []
    return found[1]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_everything_comes_back(url: str, full: str, tmp_path: Path, suffix: str) -> None:
    """Into each database and out of it again, every row of every table; ids of the audit log too."""
    file, again = str(tmp_path / f"one.jsonl{suffix}"), str(tmp_path / f"two.jsonl{suffix}")
    there = export_sessions(full, file)
    planned = import_sessions(url, file, dry_run=True)
    report = import_sessions(url, file)
    assert (planned.rows, planned.dry_run, report.dry_run) == (there.rows, True, False)
    assert report.rows == there.rows
    assert digests(url) == digests(full)
    assert export_sessions(url, again).rows == there.rows
    copy = f"sqlite:///{tmp_path / 'copy.db'}"
    migrate.upgrade(copy)
    import_sessions(copy, again)
    assert digests(copy) == digests(full)


def test_a_directory_of_jsonl_files_takes_part(jsonl_url: str, full: str, exported: Path, tmp_path: Path) -> None:
    """What it was given is there when it is read from its files again."""
    migrate.upgrade(jsonl_url)
    import_sessions(jsonl_url, str(exported))
    back, copy = str(tmp_path / "back.jsonl"), f"sqlite:///{tmp_path / 'copy.db'}"
    export_sessions(jsonl_url, back)
    migrate.upgrade(copy)
    import_sessions(copy, back)
    assert digests(copy) == digests(full)


def test_an_export_is_one_snapshot(url: str, exported: Path, tmp_path: Path) -> None:
    """What is saved, made and removed while it is written is not in it."""
    import_sessions(url, str(exported))
    before = digests(url)
    interfered: list[bool] = []

    def interfere(_rows: int, _done: int, _total: int) -> None:
        if interfered:
            return
        interfered.append(True)
        with SessionManager.open(url) as manager:
            manager.create_session(session_id="zzz")
            manager.add_message("s-0000090", "user", "late") if manager.get_session("s-0000090") else None
            for session in manager.list_sessions(state="active", limit=5).items:
                manager.add_message(session.session_id, "user", "late")
            for session in manager.list_sessions(state="completed", limit=5).items:
                manager.delete_session(session.session_id, force=True)

    file = str(tmp_path / "snapshot.jsonl")
    export_sessions(url, file, progress=interfere)
    assert digests(url) != before
    copy = f"sqlite:///{tmp_path / 'copy.db'}"
    migrate.upgrade(copy)
    import_sessions(copy, file)
    assert digests(copy) == before


@pytest.mark.parametrize(
    ("selection", "fits"),
    [
        (Selection(tenant="t1"), lambda row: row["tenant"] == "t1"),
        (Selection(kind="cron"), lambda row: row["kind"] == "cron"),
        (Selection(state="ended"), lambda row: row["state"] == "ended"),
        (Selection(user_id="user-7"), lambda row: row.get("user_id") == "user-7"),
        (Selection(session_ids=("s-0000001", "s-0000002", "none")), lambda row: row["session_id"].endswith(("01", "02"))),
        (
            Selection(since=datetime(2026, 11, 21, 7, 0, 30, tzinfo=UTC), kind="chat"),
            lambda row: row["kind"] == "chat" and row["updated_at"] >= "2026-11-21T07:00:30",
        ),
        (
            Selection(until=datetime(2026, 11, 21, 7, 0, 30, tzinfo=UTC)),
            lambda row: row["updated_at"] < "2026-11-21T07:00:30",
        ),
    ],
)  # fmt: skip
def test_filters(
    full: str, exported: Path, tmp_path: Path, selection: Selection, fits: Callable[[dict[str, Any]], bool]
) -> None:
    """Just the sessions that fit are written, with all they own; the lines of removed ones only with all of a tenant's."""
    file = tmp_path / "some.jsonl"
    report = export_sessions(full, str(file), selection=selection)
    rows = [next(iter(line.items())) for line in objects(exported)[1:-1]]
    keys = {(row["tenant"], row["session_id"]) for name, row in rows if name == "sessions" and fits(row)}
    keys |= {("t1", "gone")} if selection.tenant else set()
    expected = [(name, row) for name, row in rows if name != "block" and (row["tenant"], row["session_id"]) in keys]
    given = [next(iter(line.items())) for line in objects(file)[1:-1]]
    assert sorted(map(str, (line for line in given if line[0] != "block"))) == sorted(map(str, expected))
    assert report.sessions == sum(name == "sessions" for name, _ in expected) > 0


def test_filters_that_mean_nothing_are_refused() -> None:
    """With the name of the one that is wrong."""
    with pytest.raises(InvalidArgument, match="state must be one of"):
        Selection(state="done")
    with pytest.raises(InvalidArgument, match="session_ids"):
        Selection(session_ids=tuple(map(str, range(2000))))


def test_a_file_cut_off_anywhere_is_refused(migrated_sqlite_url: str, exported: Path, tmp_path: Path) -> None:
    """Behind each line and within some, with the number of the line where it ends."""
    data, file = exported.read_bytes(), tmp_path / "cut.jsonl"
    ends = [place + 1 for place, byte in enumerate(data) if byte == 10]
    for number, end in [(0, 0), *list(enumerate(ends, start=1))[:-1:7]]:
        for cut in {end, max(0, end - 5)}:
            file.write_bytes(data[:cut])
            with pytest.raises(InvalidFile, match=r"cut off|empty|first line"):
                import_sessions(migrated_sqlite_url, str(file), dry_run=True)
        assert number <= len(ends)
    file.write_bytes(data[: ends[-2]])
    error = refused(migrated_sqlite_url, file)
    assert (error.line, "cut off" in error.problem) == (len(ends), True)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_packed_file_cut_off_is_refused(migrated_sqlite_url: str, full: str, tmp_path: Path, suffix: str) -> None:
    """At a hundred places, and with bytes of it changed."""
    file, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    export_sessions(full, str(file))
    data = file.read_bytes()
    for part in range(1, 100):
        cut.write_bytes(data[: len(data) * part // 100])
        with pytest.raises(InvalidFile):
            import_sessions(migrated_sqlite_url, str(cut), dry_run=True)
    for part in range(10, 100, 10):
        place = len(data) * part // 100
        cut.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        with pytest.raises(InvalidFile):
            import_sessions(migrated_sqlite_url, str(cut), dry_run=True)
    refused(migrated_sqlite_url, cut)


def test_what_is_plainly_right_is_read_alike(exported: Path) -> None:
    """Line by line, and rows of every table are plainly right."""
    plain = set()
    for line in exported.read_bytes().splitlines(keepends=True)[1:]:
        read = read_plain(line)
        if read is not None:
            name, row = read
            assert decode_line(line)[0] == name
            assert row == decode(name, decode_line(line)[1])
            plain.add(name)
    assert plain == set(TABLES)


def test_a_conflict_is_told_before_what_is_wrong_behind_it(url: str, exported: Path, tmp_path: Path) -> None:
    """One batch is stored while the next one is read: what comes first in the file is what is told, and nothing is left."""
    import_sessions(url, str(exported))
    before = digests(url)
    bad = changed(exported, tmp_path, lambda lines: lines.insert(-1, b"garbage\n"))
    with patch.object(importing, "_ROWS", 10), pytest.raises(SessionExists):
        import_sessions(url, str(bad))
    assert digests(url) == before
    with patch.object(importing, "_ROWS", 10), pytest.raises(InvalidFile, match="is not JSON"):
        import_sessions(url, str(bad), on_conflict="replace")
    assert digests(url) == before


def replaced(number: int, old: bytes, new: bytes) -> Callable[[list[bytes]], None]:
    """Replace within the first line from a number on that has it."""

    def change(lines: list[bytes]) -> None:
        place = next(i for i in range(number, len(lines)) if old in lines[i])
        lines[place] = lines[place].replace(old, new, 1)

    return change


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        (lambda lines: lines.insert(3, b"garbage\n"), None, "is not JSON"),
        (lambda lines: lines.insert(3, b"\xff\xfe\n"), None, "is not UTF-8: byte 0 is 0xFF"),
        (lambda lines: lines.insert(3, b"[1]\n"), None, "must be an object of one name"),
        (lambda lines: lines.insert(3, b'{"users":{}}\n'), None, "there is no table 'users'"),
        (lambda lines: lines.insert(3, b'{"sessions":7}\n'), None, "sessions must be an object"),
        (lambda lines: lines.insert(3, b"[" * 100_000 + b"\n"), None, "is not JSON"),
        (replaced(1, b'"kind":"chat",', b""), "sessions.kind", "is missing"),
        (replaced(1, b'"kind":"chat"', b'"kind":7'), "sessions.kind", "must be text, not 7"),
        (replaced(1, b'"kind":"chat"', b'"kind":"' + b"x" * 256 + b'"'), "sessions.kind", "at most 255 characters"),
        (replaced(1, b'"kind":"chat"', b'"kind":"\\ud800"'), "sessions.kind", "lone surrogate"),
        (replaced(1, b'"kind":"chat"', b'"kind":"\\u0000"'), "sessions.kind", "U+0000"),
        (replaced(1, b'"kind":"chat"', b'"kin":"chat"'), "sessions.kind", "is missing"),
        (replaced(1, b'"config":"{}"', b'"config":"{}","x":1'), "sessions.x", "there is no such column"),
        (replaced(1, b'"config":"{}"', b'"config":"{"'), "sessions.config", "JSON document"),
        (replaced(1, b'"config":"{}"', b'"config":"NaN"'), "sessions.config", "JSON document"),
        (replaced(1, b'"state":"active"', b'"state":"busy"'), "sessions.state", "must be one of active, suspended"),
        (replaced(1, b'"state":"active"', b'"state":"ended"'), "sessions.ended_at", "must be there"),
        (replaced(1, b'"version":1', b'"version":0'), "sessions.version", "must be a whole number from 1"),
        (replaced(1, b'"version":1', b'"version":true'), "sessions.version", "must be a whole number from 1"),
        (replaced(1, b'"version":1', b'"version":9223372036854775808'), "sessions.version", "must be a whole number"),
        (replaced(1, b'"protected":true', b'"protected":1'), "sessions.protected", "true or false"),
        (replaced(1, b'+00:00"', b'"'), "sessions.last_message_at", "with its zone"),
        (replaced(1, b"2026-11-21T", b"2026-13-21T"), "sessions.last_message_at", "must be a time"),
        (replaced(1, b"2026-11-21T", b"0026-11-21T"), "sessions.last_message_at", "of the year 1000 or later"),
        (replaced(1, b'"session_id":"', b'"session_id":"","y":"'), "sessions.session_id", "must not be empty"),
        (
            replaced(1, b'"new_items":"2 v', b'"new_items":"two v'),
            "session_graph_checkpoints.new_items",
            "lines of a number",
        ),
        (replaced(1, b'"new_items":"2 v', b'"new_items":"3 v'), "session_graph_checkpoints.last_item", "at least 3"),
        (replaced(1, b'"message_id":"m3"', b'"message_id":"m2"'), "session_messages.message_id", "two messages 'm2'"),
        (lambda lines: lines.pop(1), None, "belongs to session"),
        (lambda lines: lines.insert(1, lines[1]), None, "is here twice"),
        (lambda lines: lines.insert(1, lines.pop(2)), None, "not in order"),
        (lambda lines: lines.insert(-1, lines[1]), None, "not in order"),
        (lambda lines: lines.pop(-2), None, "not ended"),
        (lambda lines: lines.append(lines[1]), None, "more behind the last line"),
        (lambda lines: lines.append(b"\n"), None, "more behind the last line"),
        (replaced(1, b"plain and some", b"plain and same"), None, "the file has sha256"),
    ],
)
def test_a_file_that_was_changed_is_refused(
    migrated_sqlite_url: str, exported: Path, tmp_path: Path,
    change: Callable[[list[bytes]], object], field: str | None, says: str,
) -> None:  # fmt: skip
    """With its line, the column and what was expected there; a dry run finds all of it."""
    error = refused(migrated_sqlite_url, changed(exported, tmp_path, change))
    assert error.field == field
    assert says in error.problem
    assert error.line is not None
    assert f"line {error.line}" in str(error)


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (b'{"lifecycle":{"format":2,"schema":"0001","release":"9.9"}}\n', "format 2, this release reads 1.*9.9"),
        (b'{"lifecycle":{"format":1,"schema":"0000"}}\n', "revision 0000 of the schema"),
        (b'{"lifecycle":{"format":1}}\n', "no export of Lifecycle"),
        (b'{"sessions":{}}\n', "no export of Lifecycle"),
        (b"SQLite format 3\x00" + b"\x00" * 100_000, "longer than|no export of Lifecycle"),
        (b"", "empty"),
    ],
)
def test_a_file_of_something_else_is_refused(
    migrated_sqlite_url: str, exported: Path, tmp_path: Path, first: bytes, says: str
) -> None:
    """By its first line."""
    rest = b"".join(exported.read_bytes().splitlines(keepends=True)[1:]) if first else b""
    file = tmp_path / "other"
    file.write_bytes(first + rest)
    with pytest.raises(InvalidFile, match=says):
        import_sessions(migrated_sqlite_url, str(file))


def test_what_is_there_already(url: str, exported: Path) -> None:
    """An error unless told otherwise; skipped it stays as it is, replaced it is the file's."""
    import_sessions(url, str(exported))
    before = digests(url)
    with pytest.raises(SessionExists):
        import_sessions(url, str(exported))
    with pytest.raises(SessionExists):
        import_sessions(url, str(exported), dry_run=True)
    assert digests(url) == before
    with SessionManager.open(url) as manager:
        kept = manager.list_sessions(state="active", limit=1).items[0].session_id
        manager.add_message(kept, "user", "mine")
        mine = digests(url)
        skipped = import_sessions(url, str(exported), on_conflict="skip")
        assert (skipped.skipped, skipped.rows_total) == (SESSIONS, 0)
        assert digests(url) == mine
        planned = import_sessions(url, str(exported), on_conflict="replace", dry_run=True)
        done = import_sessions(url, str(exported), on_conflict="replace")
        assert (planned.replaced, done.replaced) == (SESSIONS, SESSIONS)
        assert [message.content for message in manager.get_messages(kept) if message.content == "mine"] == []
    after = digests(url)
    # The audit log's lines have new ids, and the sessions later epochs: no lease from before is theirs.
    assert {name for name in after if after[name] != before[name]} == {"sessions", "session_transitions"}


def test_a_lease_of_the_replaced_session_is_lost(url: str, tmp_path: Path) -> None:
    """Whoever held it cannot write to the one that took its place."""
    with SessionManager.open(url) as manager:
        manager.create_session(session_id="a")
        file = str(tmp_path / "a.jsonl")
        export_sessions(url, file)
        epoch = manager.acquire_lease("a", holder="me", ttl=60)
        import_sessions(url, file, on_conflict="replace")
        found = manager.get_session("a")
        assert found is not None
        assert found.lease_holder is None
        assert manager.acquire_lease("a", holder="you", ttl=60) > epoch
        # And whoever held it when it was exported does not hold the one that is replaced.
        held = str(tmp_path / "held.jsonl")
        export_sessions(url, held)
        manager.delete_session("a", force=True)
        manager.create_session(session_id="a")
        import_sessions(url, held, on_conflict="replace")
        assert manager.save_state("a", step=1)


def test_new_sessions_beside_old_ones(url: str, exported: Path) -> None:
    """Where the audit log has lines of its own, the file's get new ids; its sessions go on and are watched."""
    with SessionManager.open(url) as manager:
        manager.create_session(session_id="mine")
        cursor = None
        for event in manager.watch(after="", timeout=0):
            cursor = event.cursor
        report = import_sessions(url, str(exported))
        manager.create_session(session_id="after")
        seen = list(manager.for_tenant("").watch(after=cursor, timeout=0))
        lines = [row["session_transitions"] for row in objects(exported) if "session_transitions" in row]
        assert report.rows["session_transitions"] == len(lines)
        own = [(line["session_id"], line["seq"]) for line in lines if line["tenant"] == ""]
        assert sorted((event.session_id, event.seq) for event in seen) == sorted([*own, ("after", 1)])
        assert seen[-1].session_id == "after"
        by_session: dict[str, list[int]] = {}
        for event in seen:
            by_session.setdefault(event.session_id, []).append(event.seq)
        assert all(numbers == sorted(numbers) for numbers in by_session.values())
        active = next(s for s in manager.list_sessions(state="active", limit=20).items if s.session_id != "mine")
        manager.complete_session(active.session_id)


def test_a_restored_database_goes_on(url: str, exported: Path) -> None:
    """Where the ids were kept, new lines get others, and a watch from the beginning gives all of them once."""
    import_sessions(url, str(exported))
    with SessionManager.open(url) as manager:
        manager.create_session(session_id="after")
        events = list(manager.watch(after="", timeout=0))
        assert len({event.id for event in events}) == len(events)
        assert (events[-1].session_id, events[-1].id > max(event.id for event in events[:-1])) == ("after", True)


def test_a_running_watch_sees_the_import_once(url: str, exported: Path) -> None:
    """All of its lines, when they are committed, and what comes after."""
    with SessionManager.open(url) as manager:
        seen: list[str] = []
        done = threading.Event()
        watch = manager.watch(poll=0.01)

        def look() -> None:
            for event in watch:
                seen.append(f"{event.session_id} {event.seq}")
                if event.session_id == "after":
                    break
            done.set()

        thread = threading.Thread(target=look)
        thread.start()
        import_sessions(url, str(exported))
        manager.create_session(session_id="after")
        assert done.wait(60)
        thread.join()
    lines = [row["session_transitions"] for row in objects(exported) if "session_transitions" in row]
    assert sorted(seen) == sorted([f"{r['session_id']} {r['seq']}" for r in lines if r["tenant"] == ""] + ["after 1"])


def test_a_tenant_keeps_to_itself(migrated_sqlite_url: str, exported: Path) -> None:
    """A file with other tenants' sessions is refused for one of them."""
    error = refused(migrated_sqlite_url, exported, tenant="t9")
    assert error.field == "sessions.tenant"


def test_an_import_may_be_repeated_with_skip(url: str, exported: Path) -> None:
    """Neither a session nor the line on a removed one is stored twice."""
    import_sessions(url, str(exported), on_conflict="skip")
    once = digests(url)
    import_sessions(url, str(exported), on_conflict="skip")
    assert digests(url) == once
    with SessionManager.open(url, tenant="t1") as manager:
        assert len(manager.history("gone")) == 1


def test_large_documents(url: str, tmp_path: Path) -> None:
    """Of megabytes, in one statement or in pieces."""
    context = {"text": 'é\\" ' * 700_000}
    with SessionManager.open(url) as manager:
        manager.create_session(session_id="a", context=context)
        manager.checkpoint("a", "large")
    file = str(tmp_path / "large.jsonl.gz")
    export_sessions(url, file)
    import_sessions(url, file, on_conflict="replace")
    with SessionManager.open(url) as manager:
        state = manager.load_state("a")
        assert state is not None
        assert state.context == context
        (checkpoint,) = manager.list_checkpoints("a")
        manager.restore_checkpoint("a", checkpoint.seq)


def test_the_database_has_to_be_there(exported: Path, tmp_path: Path) -> None:
    """With the schema of this release; and the file, to be read or written."""
    with pytest.raises(SchemaOutdated, match="lifecycle db upgrade"):
        import_sessions(f"sqlite:///{tmp_path / 'none.db'}", str(exported))
    url = f"sqlite:///{tmp_path / 'a.db'}"
    migrate.upgrade(url)
    with pytest.raises(FileUnavailable, match=r"No such file"):
        import_sessions(url, str(tmp_path / "none.jsonl"))
    with pytest.raises(FileUnavailable, match="Is a directory"):
        import_sessions(url, str(tmp_path))
    with pytest.raises(FileUnavailable, match=r"No such file"):
        export_sessions(url, str(tmp_path / "none" / "a.jsonl"))
    with pytest.raises(InvalidArgument, match=r"--overwrite"):
        export_sessions(url, str(tmp_path / "a.db"))


def test_an_export_that_fails_leaves_no_file(full: str, tmp_path: Path) -> None:
    """Neither under its name nor another; what had the name stays."""
    file = tmp_path / "kept.jsonl"
    file.write_text("mine")

    def fail(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_sessions(full, str(file), overwrite=True, progress=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.jsonl"]
    assert file.read_text() == "mine"
    export_sessions(full, str(file), overwrite=True)
    assert objects(file)[-1]["end"]["rows"]["sessions"] == SESSIONS
    assert datetime.fromisoformat(objects(file)[0]["lifecycle"]["written_at"]) > datetime.now(UTC) - timedelta(hours=1)


def test_an_interrupted_replacement_leaves_one_whole_file(
    migrated_sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the directory cannot be synced the new file has its name already, and stays; its mode is that of the old one."""
    file = tmp_path / "backup.jsonl"
    with SessionManager.open(migrated_sqlite_url) as manager:
        manager.create_session(session_id="a")
    export_sessions(migrated_sqlite_url, str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)

    def interrupted(_directory: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "sync_directory", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_sessions(migrated_sqlite_url, str(file), overwrite=True)
    assert [path.name for path in tmp_path.iterdir() if path.suffix in {".jsonl", ".tmp"}] == ["backup.jsonl"]
    assert b'"a"' in file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
