"""The example agent and the runner's commands, in processes that are killed for real."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lifecycle import SessionManager
from lifecycle.models import tables as t
from tests.managers import backdate

ROOT = Path(__file__).resolve().parents[2]
STEPS = 8


@contextmanager
def process(*words: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A Python process whose output is read as it comes."""
    with subprocess.Popen(
        [sys.executable, *words], cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as started:  # fmt: skip
        try:
            yield started
        finally:
            started.kill()


def said_until(kill_at: str | None, *words: str, cwd: Path) -> list[str]:
    """The lines of a process up to one that this pattern is found in, at which it is killed, or up to its good end."""
    said: list[str] = []
    with process(*words, cwd=cwd) as running:
        assert running.stdout is not None
        for line in running.stdout:
            said.append(line.strip())
            if kill_at and re.search(kill_at, line):
                running.kill()
                break
        else:
            assert running.wait(60) == 0, said
    return said


def agent(url: str) -> tuple[str, ...]:
    """The example's command line, with short times."""
    return ("-m", "examples.durable_agent", "--url", url, "--steps", str(STEPS), "--seconds", "0.05", "--ttl", "1")


def test_an_agent_that_is_killed_goes_on_at_the_next_step(migrated_url: str, tmp_path: Path) -> None:
    """Killed twice with SIGKILL, then left to finish: every step stands in the conversation once, in order."""
    saved: list[int] = []
    for kill_after in (2, 5, None):
        with process(*agent(migrated_url), cwd=tmp_path) as running:
            assert running.stdout is not None
            for line in running.stdout:
                said = re.match(r"one: step (\d+) of", line)
                if said:
                    saved.append(int(said[1]))
                if saved and saved[-1] == kill_after:
                    running.kill()
                    break
            else:
                assert running.wait(30) == 0
    with SessionManager.open(migrated_url) as manager:
        state = manager.load_state("one", any_state=True)
        session = manager.get_session("one")
    assert state is not None
    assert session is not None
    assert session.state == "completed"
    steps = [int(entry["content"].split()[1]) for entry in state.conversation]
    assert steps == list(range(1, STEPS + 1))
    # A line that was about to be printed is all a kill may cost.
    assert set(range(1, STEPS + 1)) - set(saved) <= {3, 6}
    assert len(saved) == len(set(saved))


def test_a_runner_from_the_command_line(migrated_sqlite_url: str, tmp_path: Path) -> None:
    """MODULE:NAME is run until nothing waits; a wrong one is a clear refusal."""
    (tmp_path / "agents.py").write_text(
        f"from lifecycle import SessionRunner\nrunner = SessionRunner({migrated_sqlite_url!r}, poll=0.02)\n"
        "@runner.handler('chat')\ndef chat(run):\n    run.save(step=1)\n"
    )
    with SessionManager.open(migrated_sqlite_url) as manager:
        manager.create_session(session_id="s", available_at=datetime.now(UTC))
        with process("-m", "lifecycle.cli", "runner", "agents:runner", "--until-idle", cwd=tmp_path) as running:
            assert running.wait(60) == 0
        session = manager.get_session("s")
        assert session is not None
        assert session.state == "completed"
    for target, says in (
        ("agents", "MODULE:NAME"),
        ("nowhere:runner", "no module"),
        ("agents:nothing", "SessionRunner"),
    ):
        with process("-m", "lifecycle.cli", "runner", target, cwd=tmp_path) as running:
            said, _ = running.communicate(timeout=60)
            assert running.returncode == 2
            assert says in said
            assert "Traceback" not in said


def test_what_is_stuck_is_listed(migrated_sqlite_url: str, tmp_path: Path) -> None:
    """Held but silent, due but unclaimed, rescued often; and exit code 1 if there is any of it."""

    def stuck() -> tuple[int, str]:
        words = ("-m", "lifecycle.cli", "--url", migrated_sqlite_url, "sessions", "stuck", "--json")
        with process(*words, cwd=tmp_path) as running:
            said, _ = running.communicate(timeout=60)
            return running.returncode, said

    past = datetime.now(UTC) - timedelta(hours=1)
    with SessionManager.open(migrated_sqlite_url) as manager:
        manager.create_session(session_id="fine", available_at=datetime.now(UTC) + timedelta(hours=1))
        assert stuck() == (0, "[]\n")
        manager.acquire_lease("fine", holder="gone", ttl=1)
        backdate(migrated_sqlite_url, t.sessions, lease_expires_at=past, available_at=past, rescues=3)
        code, said = stuck()
    assert code == 1
    for why in ("held but silent", "due but unclaimed", "rescued often"):
        assert why in said


@pytest.mark.parametrize("name", ["one"])
def test_a_second_process_takes_over_from_a_killed_one(migrated_postgres_url: str, tmp_path: Path, name: str) -> None:
    """It waits beside the first, and goes on when that one's lease has run out."""
    with process(*agent(migrated_postgres_url), cwd=tmp_path) as first:
        assert first.stdout is not None
        next(line for line in first.stdout if f"{name}: step 2 " in line)
        with process(*agent(migrated_postgres_url), cwd=tmp_path) as second:
            first.kill()
            said, _ = second.communicate(timeout=60)
            assert second.returncode == 0
    assert f"{name}: going on after step" in said
    assert f"{name}: finished" in said
