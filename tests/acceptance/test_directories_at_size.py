"""Session directories as they grow: thousands of sessions, a writer that does not stop, kills, a database that is away.

LIFECYCLE_DIRECTORY_SESSIONS sets the size: 600 by default, which takes seconds; 5,000 is the full size.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lifecycle import SessionManager
from lifecycle.directories import SessionDirectory
from tests.session_directories import Made, append, generate, header, message, read_index

ROOT = Path(__file__).resolve().parents[2]
SESSIONS = int(os.environ.get("LIFECYCLE_DIRECTORY_SESSIONS", "600"))
AGENTS = 14
PATIENCE = 120.0

# What an agent does: read the index, add a key, write it whole to another file, rename. It says which keys it added
# once they are in place, and never takes one away.
WRITER = """
import json, os, sys, time, uuid
from pathlib import Path
folders = [Path(name) for name in sys.argv[2:]]
acknowledged = open(sys.argv[1], "a", buffering=1)
turn = 0
while True:
    folder = folders[turn % len(folders)]
    turn += 1
    index = folder / "sessions.json"
    entries = json.loads(index.read_text())
    session, key = f"new-{turn}", f"agent:{folder.parent.name}:telegram:group:new-{turn}"
    line = json.dumps({"type": "message", "id": "00000000", "message": {"role": "user", "content": key}})
    (folder / f"{session}.jsonl").write_text(line + "\\n")
    entries[key] = {"sessionId": session, "updatedAt": int(time.time() * 1000), "from": "writer"}
    temporary = folder / f"sessions.json.{uuid.uuid4().hex}.tmp"
    temporary.write_text(json.dumps(entries))
    os.replace(temporary, index)
    acknowledged.write(json.dumps([folder.parent.name, key, session]) + "\\n")
    time.sleep(0.002)
"""

COMMAND = """
import json, sys
from lifecycle import SessionManager
from lifecycle.directories import SessionDirectory
url, root, what = sys.argv[1:4]
with SessionManager.open(url) as manager:
    directory = SessionDirectory(root, manager)
    print("ready", flush=True)
    report = directory.sync() if what == "sync" else directory.prune("60m")
    print(json.dumps(report.model_dump()))
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """A database with the schema in place, on SQLite and on PostgreSQL."""
    name = {"sqlite": "migrated_sqlite_url", "postgresql": "migrated_postgres_url"}[request.param]
    return str(request.getfixturevalue(name))


@pytest.fixture
def manager(url: str) -> Iterator[SessionManager]:
    """A manager on it."""
    with SessionManager.open(url) as opened:
        yield opened


class Writer:
    """A process that keeps adding keys to every index."""

    def __init__(self, made: Made, log: Path) -> None:
        self.log = log
        self.log.touch()
        folders = [str(made.folder(f"agent{a:02}")) for a in range(AGENTS)]
        self.process = subprocess.Popen([sys.executable, "-c", WRITER, str(log), *folders], stderr=subprocess.PIPE)

    def acknowledged(self) -> list[list[str]]:
        """The agent, key and session of each key that it wrote."""
        return [json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def stop(self) -> None:
        """End it, after it has seen every index at least twice."""
        until(lambda: self.process.poll() is not None or len(self.acknowledged()) >= 2 * AGENTS, "the writer")
        assert self.process.poll() is None, self.process.stderr and self.process.stderr.read()
        self.process.kill()
        self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()


def until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until the condition gives something true, and return that."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE:.0f} s for {what}")
        time.sleep(0.02)
    return found


def recount(root: Path) -> dict[str, Any]:
    """What is on disk, counted without any of the code under test."""
    keyed: set[tuple[str, str]] = set()
    files: set[tuple[str, str]] = set()
    archives = 0
    for folder in (root / "agents").glob("*/sessions"):
        agent = folder.parent.name
        keyed |= {(agent, one["sessionId"]) for one in read_index(folder).values()}
        for path in folder.iterdir():
            if path.name.endswith(".jsonl"):
                files.add((agent, path.name.removesuffix(".jsonl")))
            archives += ".jsonl.deleted." in path.name
    return {"sessions": keyed, "orphans": files - keyed, "missing": keyed - files, "archives": archives}


def in_database(manager: SessionManager) -> dict[str, tuple[str, int]]:
    """Every session of the database: its state and its number of messages."""
    found: dict[str, tuple[str, int]] = {}
    cursor = None
    while True:
        page = manager.list_sessions(limit=100, sort="session_id", order="asc", cursor=cursor)
        found |= {one.session_id: (one.state, one.message_count) for one in page.items}
        cursor = page.next_cursor
        if cursor is None:
            return found


def live(database: dict[str, tuple[str, int]]) -> set[str]:
    """The ids of sessions that are not finished."""
    return {name for name, (state, _) in database.items() if state == "active"}


def names(pairs: set[tuple[str, str]]) -> set[str]:
    """Agents and sessions as ids of the database."""
    return {f"{agent}:{session}" for agent, session in pairs}


def test_a_writer_loses_no_key_and_every_count_is_right(
    manager: SessionManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scan, sync, prune and orphans beside a process that rewrites every index; then all is as a recount has it."""
    made = generate(tmp_path / "root", sessions=SESSIONS, agents=AGENTS)
    directory = SessionDirectory(made.root, manager)
    scanned = directory.scan().total
    assert (scanned.sessions, scanned.keys, scanned.orphans, scanned.missing, scanned.empty) == (
        made.sessions, made.keys, made.orphans, made.missing, made.empty,
    )  # fmt: skip
    writer = Writer(made, tmp_path / "written")
    try:
        directory.sync()
        pruned = [directory.prune("60m") for _ in range(3)]
        archived = directory.orphans(archive=True)
        directory.sync()
    finally:
        writer.stop()
    assert pruned[0].pruned_count > 0
    assert archived.archived_count > 0
    for agent, key, session in writer.acknowledged():
        assert read_index(made.folder(agent))[key]["from"] == "writer"
        assert (made.folder(agent) / f"{session}.jsonl").exists()
    # What the writer had read before a cut, it wrote again with its next key: now that it is quiet, it goes for good.
    pruned.append(directory.prune("60m"))
    assert [problem for problem in pruned[-1].errors if "database" in problem] == []
    directory.orphans(archive=True)
    directory.sync()
    counted, database = recount(made.root), in_database(manager)
    stale = {one for report in pruned for one in report.deleted_ids}
    assert stale == set(made.stale)
    assert {session for _, session in counted["sessions"]} & stale == set()
    assert live(database) == names(counted["sessions"] | counted["orphans"])
    assert {name: database[name][1] for name in made.by_session} == made.by_session
    total = directory.scan().total
    assert (total.sessions, total.orphans, total.missing, total.archives) == (
        len(counted["sessions"]), len(counted["orphans"]), len(counted["missing"]), counted["archives"],
    )  # fmt: skip

    second = SessionDirectory(made.root, manager).sync()
    assert (second.created, second.updated, second.ended, second.messages, second.transcripts_opened) == (0, 0, 0, 0, 0)
    assert second.sessions == second.unchanged == len(counted["sessions"]) + len(counted["orphans"])
    assert in_database(manager) == database

    opened = _opened(monkeypatch)
    changed = sorted(made.root.glob("agents/*/sessions/*.jsonl"))[:: max(1, total.transcripts // 10)][:10]
    for path in changed:
        append(path, message(10_000, "later"))
    third = SessionDirectory(made.root, manager).sync()
    assert (third.updated, third.messages, third.transcripts_opened) == (10, 10, 10)
    assert set(opened) == set(changed)
    assert third.transcript_bytes < sum(path.stat().st_size for path in changed) + 10 * 6000


def _opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The transcripts that are opened from here on, by the interpreter's own account."""
    found: list[Path] = []
    real = Path.open

    def noted(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.suffix == ".jsonl":
            found.append(self)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", noted)
    return found


@contextlib.contextmanager
def command(url: str, root: Path, what: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that syncs or prunes; killed at the end if it is still there."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, url, str(root), what], text=True, stdout=subprocess.PIPE, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_sync_that_is_killed_again_and_again_comes_to_the_same_end(
    url: str, manager: SessionManager, tmp_path: Path
) -> None:
    """Killed wherever it is, three times; the next one goes on, and every message is there once."""
    made = generate(tmp_path / "root", sessions=SESSIONS // 2, agents=AGENTS)
    large = made.folder("agent00") / "large.jsonl"
    large.write_text("".join(json.dumps(one) + "\n" for one in [header("large"), *(message(i) for i in range(5000))]))
    made.by_session["agent00:large"] = 5000
    kills = 0
    for portion in range(3):
        there = manager.get_stats().messages
        with command(url, made.root, "sync") as process:
            until(lambda: process.poll() is not None or manager.get_stats().messages > there, f"portion {portion}")  # noqa: B023 -- used at once
            if process.poll() is None:
                process.kill()
                kills += 1
    assert kills > 0
    SessionDirectory(made.root, manager).sync()
    database = in_database(manager)
    assert {name: count for name, (_, count) in database.items()} == made.by_session
    ids = [one.message_id for one in _all_messages(manager, "agent00:large")]
    assert ids == [f"{i:08x}" for i in range(5000)]
    second = SessionDirectory(made.root, manager).sync()
    assert (second.created, second.updated, second.messages, second.transcripts_opened) == (0, 0, 0, 0)


def _all_messages(manager: SessionManager, name: str) -> list[Any]:
    found: list[Any] = []
    while page := manager.get_messages(name, limit=500, after=found[-1].seq if found else 0):
        found += page
    return found


def test_a_prune_that_is_killed_loses_nothing(url: str, manager: SessionManager, tmp_path: Path) -> None:
    """Killed at several moments; in the end what was stale is archived, what was not is untouched, and none is an orphan."""
    made = generate(tmp_path / "root", sessions=SESSIONS // 2, agents=AGENTS)
    SessionDirectory(made.root, manager).sync()
    before = recount(made.root)
    kept = {pair for pair in before["sessions"] if pair[1] not in set(made.stale)}
    transcripts = len(list(made.root.glob("agents/*/sessions/*.jsonl")))
    kills = 0
    for _ in range(3):
        archives = recount(made.root)["archives"]
        with command(url, made.root, "prune") as process:
            until(lambda: process.poll() is not None or _archives(made.root) > archives + 2, "archives")  # noqa: B023
            if process.poll() is None:
                process.kill()
                kills += 1
    assert kills > 0
    directory = SessionDirectory(made.root, manager)
    directory.prune("60m")
    directory.sync()
    after = recount(made.root)
    assert after["sessions"] == kept
    assert after["orphans"] == before["orphans"]
    assert len(list(made.root.glob("agents/*/sessions/*.jsonl"))) + after["archives"] == transcripts
    leftovers = [path.name for path in made.root.rglob("*") if path.name.endswith((".lifecycle-tmp", ".removing"))]
    assert leftovers == []
    database = in_database(manager)
    assert live(database) == names(kept | before["orphans"])
    assert {name: count for name, (_, count) in database.items()} == made.by_session


def _archives(root: Path) -> int:
    return sum(1 for _ in root.glob("agents/*/sessions/*.deleted.*"))


def test_with_the_database_away_a_prune_works_on_disk(
    tmp_path: Path, migrated_sqlite_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command line, with a URL that nobody answers at; the next sync with the database catches up."""
    from lifecycle.cli import main

    made = generate(tmp_path / "root", sessions=SESSIONS // 4, agents=3)
    with SessionManager.open(migrated_sqlite_url) as manager:
        SessionDirectory(made.root, manager).sync()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("LIFECYCLE_DATABASE__CONNECT_TIMEOUT", "1s")
        away = "postgresql://nobody:secret@127.0.0.1:1/none"
        words = ["lifecycle", "--url", away, "directory", "prune", str(made.root), "--max-age", "60m", "--json"]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        report = json.loads(captured.out)
        assert (ended.value.code, set(report["deleted_ids"])) == (0, set(made.stale))
        assert report["errors"] != []
        assert all("the next sync ends what vanished" in problem for problem in report["errors"])
        assert "secret" not in captured.out + captured.err
        done = SessionDirectory(made.root, manager).sync()
        assert done.ended == len(made.stale)
        counted = recount(made.root)
        assert live(in_database(manager)) == names(counted["sessions"] | counted["orphans"])


def test_the_worker_keeps_the_database_up_to_date(migrated_sqlite_url: str, tmp_path: Path) -> None:
    """What appears, grows and vanishes on disk does so in the database, while the daemon runs."""
    made = generate(tmp_path / "root", sessions=20, agents=2)
    settings = {
        "database": {"url": migrated_sqlite_url}, "directories": {"roots": [str(made.root)]},
        "worker": {"jobs": {"sync_directories": {"every": 1}}}, "logging": {"format": "json"},
    }  # fmt: skip
    main = "import json, sys; from lifecycle import Settings; from workers import run; run(Settings(**json.loads(sys.argv[1])))"
    with (
        SessionManager.open(migrated_sqlite_url) as manager,
        (tmp_path / "worker.log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-c", main, json.dumps(settings)], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=log,
        ) as worker,
    ):  # fmt: skip
        try:
            until(lambda: manager.get_stats().messages == made.messages, "the sync")
            path = made.folder("agent01") / "later.jsonl"
            path.write_text("".join(json.dumps(one) + "\n" for one in (header("later"), message(0, "m0"))))
            until(lambda: manager.get_messages("agent01:later"), "a new session")
            append(path, message(1, "m1"))
            until(lambda: len(manager.get_messages("agent01:later")) == 2, "its next message")
            path.unlink()
            until(lambda: live(in_database(manager)) == set(made.by_session), "its end")
        finally:
            worker.terminate()
    events = [json.loads(line) for line in (tmp_path / "worker.log").read_text().splitlines()]
    problems = [event for event in events if event["event"] == "directory_problem"]
    assert len(problems) == made.malformed
    assert [event for event in events if event["event"] == "sweep_failed"] == []


class TestCommands:
    """`lifecycle directory`, as people type it."""

    @pytest.fixture
    def run(
        self,
        migrated_sqlite_url: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> Callable[..., tuple[int, str, str]]:
        """Runs a command in an empty directory; its exit code, and what it wrote to stdout and stderr."""
        from lifecycle.cli import main

        monkeypatch.chdir(tmp_path)

        def command(*words: str) -> tuple[int, str, str]:
            monkeypatch.setattr(sys, "argv", ["lifecycle", "--url", migrated_sqlite_url, *words])
            with pytest.raises(SystemExit) as ended:
                main()
            captured = capsys.readouterr()
            assert "Traceback" not in captured.err
            return int(ended.value.code or 0), captured.out, captured.err

        return command

    def test_each_prints_its_report(self, run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
        """As JSON and as a table; without a root, the configured ones; and `call` gives the same."""
        made = generate(tmp_path / "root", sessions=30, agents=2)
        root = str(made.root)
        code, out, err = run("directory", "scan", root, "--json")
        assert (code, json.loads(out)["total"]["sessions"], err) == (0, 30, "")
        Path("config.yaml").write_text(f"directories: {{roots: [{root}]}}", encoding="utf-8")
        assert json.loads(run("call", "directory.scan")[1])["total"] == json.loads(out)["total"]
        assert "agent00" in run("directory", "scan")[1]
        code, out, err = run("directory", "sync")
        assert (code, "created" in out) == (0, True)
        assert err.count("warning: ") == made.malformed
        assert json.loads(run("directory", "sync", "--json")[1])["unchanged"] == 32 == made.sessions + made.orphans
        dry = json.loads(run("directory", "prune", "--max-age", "60m", "--dry-run", "--json")[1])
        assert set(dry["deleted_ids"]) == set(made.stale)
        asked = json.dumps({"root": root, "max_age": "60m", "dry_run": True})
        assert json.loads(run("call", "directory.prune", asked)[1]) == dry
        done = json.loads(run("directory", "delete", made.stale[0], root, "--json")[1])
        assert (done["deleted"], done["database_updated"], len(done["removed_keys"])) == (made.stale[0], True, 1)
        assert "deleted_ids" in run("directory", "prune", "--max-age", "60m")[1]
        assert json.loads(run("directory", "orphans", "--archive", "--older-than", "1s", "--json")[1])["archived"]
        assert "removed_count  0" in run("directory", "retention", "--older-than", "30d")[1]
        assert "directory.prune(max_age: str | int, root: str | None = None" in run("call", "--list")[1]

    @pytest.mark.parametrize(
        ("words", "code", "says"),
        [
            (("directory", "scan"), 2, "name a directory, or set directories.roots"),
            (("directory", "scan", "nowhere"), 2, "is no session directory"),
            (("directory", "prune", "root", "--max-age", "soon"), 2, "max_age must be a duration"),
            (("directory", "prune", "root"), 2, "--max-age"),
            (("directory", "prune", "root", "--max-age", "1h", "--kind", "x"), 2, "kind must be one of chat"),
            (("directory", "delete", "none", "root"), 4, "no session 'none'"),
            (("directory", "delete", "agent:agent00:main", "root"), 9, "it is the main session of agent agent00"),
            (("directory", "retention", "root", "--disk-budget", "much"), 2, "must be a size such as 500MB"),
            (("call", "directory.prune", "{}"), 2, "directory.prune needs max_age"),
            (
                ("call", "directory.prune", '{"max_age": "1h", "kind": 3}'),
                2,
                "kind must be a list, each text, text or null",
            ),
            (("call", "directory.prine"), 2, "did you mean directory.prune"),
        ],
    )
    def test_what_is_wrong_is_one_line(
        self, run: Callable[..., tuple[int, str, str]], tmp_path: Path, words: tuple[str, ...], code: int, says: str
    ) -> None:
        """It says what is allowed, and the exit code is the error's."""
        generate(tmp_path / "root", sessions=2, agents=1)
        ended, out, err = run(*words)
        assert (ended, out) == (code, "")
        assert err.count("\n") == 1
        assert says in err
