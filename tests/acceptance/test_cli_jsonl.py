"""The command line on a directory of JSONL files: alone with it, and while another process has it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def start(folder: Path, *words: str, **options: Any) -> "subprocess.Popen[str]":
    """A command on the store `store` of a directory."""
    return subprocess.Popen(
        [sys.executable, "-m", "lifecycle.cli", "--url", "jsonl:///store", *words], text=True, cwd=folder,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}, **options,
    )  # fmt: skip


def run(folder: Path, *words: str, code: int = 0) -> str:
    """What a command says, on stdout or as its error."""
    process = start(folder, *words)
    out, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    return out if code == 0 else told


def test_the_commands(tmp_path: Path) -> None:
    """Upgrade makes the store; sessions are made, listed and moved in it by one command after another."""
    assert "run: lifecycle db upgrade" in run(tmp_path, "sessions", "list", code=11)
    assert "upgraded from nothing" in run(tmp_path, "db", "upgrade")
    assert "already at" in run(tmp_path, "db", "upgrade")
    run(tmp_path, "sessions", "create", "--id", "a", "--title", "hello")
    run(tmp_path, "sessions", "suspend", "a")
    listed = json.loads(run(tmp_path, "--json", "sessions", "list"))
    assert [(one["session_id"], one["state"]) for one in listed["items"]] == [("a", "suspended")]
    assert json.loads(run(tmp_path, "--json", "sweep", "expire", "--dry-run"))["count"] == 0


def test_while_the_daemon_has_the_store(tmp_path: Path) -> None:
    """Others are told its process id and nothing is changed; what the file's first line tells is told; then it is free."""
    daemon = start(tmp_path, "up")
    try:
        assert daemon.stderr is not None
        for line in daemon.stderr:
            if "worker_started" in line:
                break
        for words in (
            ("sessions", "list"),
            ("stats",),
            ("db", "search-index", "on"),
            ("db", "downgrade", "base", "--yes"),
        ):
            (line,) = run(tmp_path, *words, code=75).splitlines()
            assert line.startswith("error: ")
            assert f"in use by process {daemon.pid}," in line
        assert f"in use by process {daemon.pid}," in run(tmp_path, "up", code=75)
        assert "already at" in run(tmp_path, "db", "upgrade")
        run(tmp_path, "db", "check")
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.communicate(timeout=60)
    assert daemon.returncode == 0
    run(tmp_path, "sessions", "create", "--id", "a")


@pytest.mark.parametrize(
    ("url", "code", "says"),
    [
        ("jsonl:///none/x", 75, "there is no directory"),
        ("jsonl:///file", 75, "is a file"),
        ("jsonl:///others", 75, "other files (thesis.txt)"),
        ("jsonl://host/x", 78, "takes a directory"),
    ],
)
def test_what_is_no_store(tmp_path: Path, url: str, code: int, says: str) -> None:
    """One line that says what is wrong, and nothing is made or changed."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "thesis.txt").write_text("mine")
    for words in (("stats",), ("up",)):
        told = run(tmp_path, "--url", url, *words, code=code)
        assert says in told
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "others", "thesis.txt"]
