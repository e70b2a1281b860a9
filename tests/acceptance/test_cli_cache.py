"""`lifecycle cache`, as people use it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lifecycle import SessionManager, Settings
from tests.valkey import ValkeyServer


def run(folder: Path, *words: str, cache: str | None) -> subprocess.CompletedProcess[str]:
    """Run a command in an empty folder."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("LIFECYCLE_")}
    given = {} if cache is None else {"LIFECYCLE_CACHE__URL": cache}
    return subprocess.run(
        [sys.executable, "-m", "lifecycle.cli", *words], cwd=folder, env=known | given, text=True, capture_output=True,
        check=False, timeout=60,
    )  # fmt: skip


def test_check_and_clear(tmp_path: Path, own_valkey: ValkeyServer) -> None:
    """What was written past the managers is seen once the cache is cleared; other databases' entries stay."""
    url = f"sqlite:///{tmp_path / 'lifecycle.db'}"
    settings = Settings(database={"url": url}, cache={"url": own_valkey.url, "timeout": 5})
    with SessionManager.open(settings) as cached, SessionManager.open(url) as plain:
        cached.setup()
        cached.create_session(session_id="s", title="old")
        cached.get_session("s")
        plain.update_session("s", title="new")
        done = run(tmp_path, "--json", "cache", "check", cache=own_valkey.url)
        told = json.loads(done.stdout)
        assert (done.returncode, done.stderr, told["cache"], told["url"]) == (0, "", "ok", own_valkey.url)
        assert (seen := cached.get_session("s")) is not None
        assert seen.title == "old"
        other = run(tmp_path, "--url", "sqlite:///other.db", "cache", "clear", cache=own_valkey.url)
        assert other.returncode == 0
        assert (seen := cached.get_session("s")) is not None
        assert seen.title == "old"
        done = run(tmp_path, "cache", "clear", "--json", cache=own_valkey.url)
        assert json.loads(done.stdout) | {"round_trip_ms": 0} == told | {"cache": "cleared", "round_trip_ms": 0}
        assert (seen := cached.get_session("s")) is not None
        assert seen.title == "new"


@pytest.mark.parametrize("what", ["check", "clear"])
def test_what_cannot_be_done_is_said_in_a_line(tmp_path: Path, what: str) -> None:
    """No cache, one that is not there, and a URL that is none; never a trace or a password."""
    for url, code, says in (
        (None, 78, "cache.url: no cache is configured"),
        ("valkey://me:hunter2@127.0.0.1:1", 75, "valkey://me:***@127.0.0.1:1 cannot be used"),
        ("http://me:hunter2@h", 78, "must be a URL that starts with valkey://"),
        ("valkey://me:hunter2@h?nonsense=1", 78, "cache.url: makes no connection"),
    ):
        done = run(tmp_path, "cache", what, cache=url)
        assert done.returncode == code, done.stderr
        assert (done.stdout, done.stderr.count("\n")) == ("", 1)
        assert says in done.stderr
        assert "hunter2" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_import_is_seen(tmp_path: Path, own_valkey: ValkeyServer) -> None:
    """It goes past the managers, and outdates what they have cached."""
    url = f"sqlite:///{tmp_path / 'lifecycle.db'}"
    settings = Settings(database={"url": url}, cache={"url": own_valkey.url, "timeout": 5})
    with SessionManager.open(settings) as cached:
        cached.setup()
        cached.create_session(session_id="s", title="old")
        assert run(tmp_path, "export", "dump.jsonl", cache=None).returncode == 0
        cached.update_session("s", title="new")
        cached.get_session("s")
        done = run(tmp_path, "import", "dump.jsonl", "--on-conflict", "replace", cache=own_valkey.url)
        assert done.returncode == 0, done.stderr
        assert (seen := cached.get_session("s")) is not None
        assert seen.title == "old"
