"""A process dies at each named point of archiving and removing: every session is in the database or in the archive.

The end of a process is not that of the machine: what it had not yet put on the disk is there all the same. That it is
put there first is seen by the order of the calls.
"""

import itertools
import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lifecycle import ALL, SessionManager, Settings, migrate
from lifecycle.archive.batch import Batch
from lifecycle.archive.store import Archive
from lifecycle.drivers.sqlite import SqliteDriver
from lifecycle.models import tables as t
from lifecycle.transfer import files
from lifecycle.transfer.importing import import_sessions
from lifecycle.transfer.rows import TABLES, columns
from tests.chaos.archiver import POINTS
from tests.managers import backdate
from tests.populations import START, connected, digests, populate

ROOT = Path(__file__).resolve().parents[2]
SESSIONS = 130

Held = dict[tuple[str, str], list[str]]


def rows_in(url: str) -> Held:
    """Every row of each session that is there, as text; the lines on removals aside."""
    held: Held = {}
    with connected(url) as connection:
        for table in TABLES.values():
            for row in connection.execute(sa.select(*columns(table))).mappings():
                if not (table is t.transitions and row["to_state"] is None):
                    held.setdefault((row["tenant"], row["session_id"]), []).append(shown(table.name, dict(row)))
    return {key: sorted(rows) for key, rows in held.items()}


def rows_in_archive(archive: Archive) -> Held:
    """The same of the newest copy of each session in the archive."""
    held: Held = {}
    if archive.directory.is_dir():
        for entry in archive.entries():
            held.setdefault(entry.key, sorted(shown(line.name, line.row) for line in archive.lines(entry)))
    return held


def shown(table: str, row: dict[str, Any]) -> str:
    """A row as text."""
    return f"{table} {sorted(row.items())}"


@pytest.mark.parametrize("database", ["sqlite", "postgres", "mariadb"])
def test_nothing_is_lost_wherever_it_dies(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Each process goes on where the one before it died, and dies elsewhere; the last one ends."""
    url = str(request.getfixturevalue(f"migrated_{database}_url"))
    archive, ledger = Archive(tmp_path / "archive"), tmp_path / "ledger"
    populate(url, SESSIONS, 3)
    backdate(url, t.sessions, ended_at=START, state="completed", prune_at=START, protected=False)
    with connected(url) as connection:
        connection.execute(sa.delete(t.transitions).where(t.transitions.c.to_state.is_(None)))
    original = rows_in(url)
    before = digests(url)
    dice = random.Random(11)

    def run(*words: str) -> int:
        command = [sys.executable, "-m", "tests.chaos.archiver", url, str(archive.directory), str(ledger), *words]
        return subprocess.run(command, cwd=ROOT, check=False).returncode

    for point, compression in zip(POINTS, itertools.cycle(("none", "zstd", "gzip")), strict=False):
        occurrence = str(dice.randrange(1, 3))
        code = run("--crash", point, "--occurrence", occurrence, "--compression", compression)
        assert code == -signal.SIGKILL or point == "random", point
        in_database, in_archive = rows_in(url), rows_in_archive(archive)
        assert in_database.keys() | in_archive.keys() == original.keys(), point
        assert {key: rows for key, rows in original.items() if key in in_database} == in_database, point
        assert {key: rows for key, rows in original.items() if key in in_archive} == in_archive, point
        removed = {one for line in ledger.read_text().splitlines() for one in json.loads(line)}
        assert removed <= {session_id for _, session_id in in_archive}, point
        assert removed.isdisjoint(session_id for _, session_id in in_database), point
    assert run() == 0
    assert (rows_in(url), rows_in_archive(archive)) == ({}, original)

    copy = f"sqlite:///{tmp_path / 'copy.db'}"
    migrate.upgrade(copy)
    for file in archive.files():
        import_sessions(copy, str(file), on_conflict="skip")
    after = digests(copy, without=("id", "txid"))
    assert {name: after[name] for name in after if name != "session_transitions"} == {
        name: before[name] for name in before if name != "session_transitions"
    }
    assert rows_without_ids(rows_in(copy)) == rows_without_ids(original)


def rows_without_ids(held: Held) -> Held:
    """The rows without those of the audit log, whose ids are the database's own."""
    return {key: [row for row in rows if not row.startswith("session_transitions")] for key, rows in held.items()}


def test_it_is_on_the_disk_before_anything_is_removed(
    migrated_sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index and the file, each synced before it has its name, and the directory after; then the commit."""
    calls: list[str] = []

    def noted(owner: Any, name: str) -> None:
        step = getattr(owner, name)

        def run(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return step(*args, **kwargs)

        monkeypatch.setattr(owner, name, run)

    with SessionManager.open(
        Settings(database={"url": migrated_sqlite_url}, archive={"directory": str(tmp_path / "archive")}), tenant=ALL
    ) as manager:
        manager.for_tenant("").create_session(session_id="warm")
        manager.for_tenant("").delete_session("warm")
        manager.for_tenant("").create_session(session_id="a")
        for owner, name in (
            (Batch, "end"), (files, "sync"), (Path, "replace"), (files, "sync_directory"), (SqliteDriver, "_commit"),
        ):  # fmt: skip
            noted(owner, name)
        manager.for_tenant("").delete_session("a")
    assert calls == ["end", *["sync", "replace", "sync_directory", "sync"] * 2, "_commit"]
