"""The archive at the command line: list, show, restore."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lifecycle.models import tables as t
from tests.managers import backdate

ROOT = Path(__file__).resolve().parents[2]


class Shell:
    """Runs commands in a directory, on its database and its archive."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.archive: str | None = "archive"

    def run(self, *words: str, code: int = 0) -> str:
        """Run a command: what it printed, or what it said when it was to be refused."""
        environment = os.environ | {"PYTHONPATH": str(ROOT), "LIFECYCLE_DATABASE__URL": self.url}
        if self.archive is not None:
            environment["LIFECYCLE_ARCHIVE__DIRECTORY"] = self.archive
        done = subprocess.run(
            [sys.executable, "-m", "lifecycle.cli", *words], cwd=self.folder, env=environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr if code else done.stdout

    def json(self, *words: str) -> Any:
        """Run a command and read the JSON it prints."""
        return json.loads(self.run(*words, "--json"))


@pytest.fixture
def shell(tmp_path: Path, migrated_sqlite_url: str) -> Shell:
    """A shell on an empty database, with an archive."""
    return Shell(tmp_path, migrated_sqlite_url)


def test_removed_and_brought_back(shell: Shell) -> None:
    """By the sweep and by hand; listed, shown with every row, restored once."""
    for name in ("a", "b"):
        shell.run("sessions", "create", "--id", name, "--user", "ada", "--title", f"Session {name}")
        shell.run("sessions", "complete", name)
    backdate(shell.url, t.sessions, prune_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert shell.json("sweep", "prune", "--dry-run")["count"] == 2
    assert shell.json("sweep", "prune")["count"] == 2
    shell.run("sessions", "create", "--id", "c")
    shell.run("sessions", "delete", "c", "--yes")

    listed = shell.json("archive", "list")
    assert [(row["session_id"], row["reason"]) for row in listed] == [("c", None), ("b", "pruned"), ("a", "pruned")]
    assert "Session b" in shell.run("archive", "list", "--user", "ada", "--limit", "1")
    assert shell.json("archive", "list", "--id", "a", "--since", "1h")[0]["title"] == "Session a"
    assert shell.json("--tenant", "other", "archive", "list") == []
    assert len(shell.json("--all-tenants", "archive", "list")) == 3

    shown = shell.json("archive", "show", "a")
    assert [row["trigger_name"] for row in shown["rows"]["session_transitions"]] == ["create", "complete"]
    assert "session_transitions" in shell.run("archive", "show", "a")

    restored = shell.json("archive", "restore", "a", "b", "--actor", "ada")
    assert [(row["session_id"], row["state"]) for row in restored] == [("a", "completed"), ("b", "completed")]
    assert shell.json("sessions", "show", "a")["title"] == "Session a"
    assert shell.json("sweep", "prune", "--dry-run")["count"] == 0
    assert "already exists" in shell.run("archive", "restore", "a", code=5)


def test_refusals(shell: Shell) -> None:
    """Each on one line, with its exit code."""
    assert "there is no such directory" in shell.run("archive", "list", code=74)
    shell.run("sessions", "create", "--id", "a")
    shell.run("sessions", "delete", "a", "--yes")
    assert "no session 'x' in the archive" in shell.run("archive", "show", "x", code=4)
    assert "no session 'x' in the archive" in shell.run("archive", "restore", "a", "x", code=4)
    assert "a" not in [row["session_id"] for row in shell.json("sessions", "list")["items"]]
    assert "--all-tenants" in shell.run("--all-tenants", "archive", "show", "a", code=2)
    (file,) = (shell.folder / "archive").glob("*/*/*/*.jsonl")
    file.write_bytes(file.read_bytes()[:-200])
    assert "cut off" in shell.run("archive", "restore", "a", code=65)
    shell.archive = "/proc/nowhere"
    shell.run("sessions", "create", "--id", "b")
    assert "cannot write /proc/nowhere" in shell.run("sessions", "delete", "b", "--yes", code=74)
    assert shell.json("sessions", "show", "b")["state"] == "active"
    shell.archive = None
    assert "archive.directory" in shell.run("archive", "list", code=78)
