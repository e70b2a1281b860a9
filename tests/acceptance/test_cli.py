"""The command line as people and agents use it: data on stdout, one line for a refusal, an exit code for each."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lifecycle import errors, states
from lifecycle.cli.diagram import svg
from lifecycle.faults import FAULTS, exit_code, http_status

ROOT = Path(__file__).resolve().parents[2]


class Shell:
    """Runs commands on a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run("db", "upgrade")

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command; its exit code is as expected and it shows no trace."""
        done = subprocess.run(
            [sys.executable, "-m", "lifecycle.cli", "--url", f"sqlite:///{self.folder}/cli.db", *words],
            capture_output=True, text=True, check=False, cwd=self.folder, timeout=60,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    def json(self, *words: str) -> Any:
        """Run a command and read the JSON it prints."""
        return json.loads(self.run(*words).stdout)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell on an empty database."""
    return Shell(tmp_path)


def test_a_session_from_its_creation_to_its_history(shell: Shell) -> None:
    """Each command does what its name says, and --json prints what came of it."""
    assert shell.json("sessions", "create", "--id", "a", "--title", "Hello [x]", "--json")["state"] == "active"
    assert shell.json("sessions", "suspend", "a", "--reason", "lunch", "--json")["state"] == "suspended"
    assert shell.json("sessions", "resume", "a", "--json")["state"] == "active"
    assert shell.json("sessions", "complete", "a", "--json")["state"] == "completed"
    triggers = [row["trigger"] for row in shell.json("sessions", "history", "a", "--json")]
    assert triggers == ["create", "suspend", "resume", "complete"]
    assert "Hello [x]" in shell.run("sessions", "show", "a").stdout
    assert shell.json("--json", "sessions", "search", "HELLO")[0]["session_id"] == "a"
    assert shell.json("sweep", "expire", "--dry-run", "--json")["dry_run"] is True
    assert shell.json("sessions", "delete", "a", "--yes", "--json") == {"deleted": "a"}
    assert shell.json("sessions", "list", "--json")["items"] == []


def test_call_runs_any_operation(shell: Shell) -> None:
    """`call` takes JSON and prints JSON, for every public operation."""
    assert shell.json("call", "create_session", '{"session_id": "b", "context": {"n": 1}}')["version"] == 1
    assert shell.json("call", "save_state", '{"session_id": "b", "append": [{"role": "user"}], "step": 3}') == 2
    assert shell.json("call", "load_state", '{"session_id": "b"}')["conversation"] == [{"role": "user"}]
    assert "save_state" in shell.json("call", "--list")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("sessions", "resume", "nobody"), 4, "no session 'nobody'"),
        (("call", "nope"), 2, "no operation 'nope'"),
        (("call", "get_session", '{"wrong": 1}'), 2, "wrong"),
        (("call", "get_session", "[1]"), 2, "JSON object"),
        (("sweep", "prune", "--older-than", "1x"), 2, "30d"),
        (("sessions", "list", "--state", "asleep"), 2, "active, suspended"),
        (("--bogus",), 2, "--bogus"),
        (("--config", "missing.yaml", "stats"), 78, "missing.yaml"),
        (("--url", "oracle://u:secret@h/x", "config", "check"), 78, "--url: database.url"),
        (("--tenant", "a", "--all-tenants", "sweep", "expire"), 2, "exclude each other"),
        (("call", "open_session", '{"session_id": "a", "wrong": 1}'), 2, "wrong"),
        (("sessions", "history", "nobody"), 4, "no session 'nobody'"),
        (("sessions", "list", "--since", "yesterday"), 2, "2026-11-21T07:00:00Z"),
        (("call", "list_sessions", '{"since": "2026-11-21T07:00"}'), 2, "with its zone"),
        (("call", "savestate"), 2, "did you mean save_state"),
        (("--url", "postgresql:///none?host=/nonexistent&connect_timeout=2", "stats"), 75, "no connection"),
    ],
)
def test_a_refusal_is_one_clear_line(shell: Shell, words: tuple[str, ...], code: int, says: str) -> None:
    """What is wrong, what is allowed, and the exit code of its kind; never a trace."""
    assert says in shell.run(*words, code=code).stderr


def test_lists_filter_count_and_page(shell: Shell) -> None:
    """The filters of `list_sessions` have options; a time may be an age."""
    for name in ("a", "b", "c"):
        shell.run("sessions", "create", "--id", name, "--parent", "top" if name == "c" else "none")
    page = shell.json("sessions", "list", "--count", "--since", "2h", "--limit", "1", "--offset", "1", "--json")
    assert (page["total"], len(page["items"]), page["has_more"]) == (3, 1, True)
    assert [one["session_id"] for one in shell.json("sessions", "list", "--parent", "top", "--json")["items"]] == ["c"]
    assert shell.json("sessions", "list", "--until", "1h", "--json")["items"] == []


def test_a_sweep_goes_by_batches_within_its_budget(shell: Shell) -> None:
    """A budget ends it after a batch; the report adds the batches up."""
    for name in ("a", "b", "c"):
        shell.run("sessions", "create", "--id", name)
    with contextlib.closing(sqlite3.connect(shell.folder / "cli.db")) as connection, connection:
        connection.execute("UPDATE sessions SET expires_at = 1, ghost_at = 1")
    report = shell.json("sweep", "expire", "--batch", "1", "--budget", "0", "--json")
    assert (report["count"], report["batches"], report["complete"]) == (1, 1, False)
    report = shell.json("sweep", "expire", "--batch", "1", "--json")
    assert (report["count"], report["complete"], len(report["session_ids"])) == (2, True, 2)


def test_help_and_diagram_need_no_configuration(shell: Shell) -> None:
    """A broken configuration does not keep anybody from reading what commands there are."""
    (shell.folder / "broken.yaml").write_text("database: [")
    assert "--state" in shell.run("--config", "broken.yaml", "sessions", "list", "--help").stdout
    assert "suspend" in shell.run("--config", "broken.yaml", "diagram").stdout
    assert "broken.yaml" in shell.run("--config", "broken.yaml", "stats", code=78).stderr


def test_a_worker_that_is_refused_says_so_by_its_exit_code(tmp_path: Path) -> None:
    """A schema that is missing is no crash to restart from."""
    shell = Shell.__new__(Shell)
    shell.folder = tmp_path
    assert "lifecycle db upgrade" in shell.run("worker", code=11).stderr


def test_what_others_wrote_does_not_steer_the_terminal(shell: Shell) -> None:
    """An escape sequence in a title is shown, not obeyed, and a pipe gets ids uncut."""
    name = "x" * 60
    shell.run("sessions", "create", "--id", name, "--title", "\x1b[31mred")
    shown = shell.run("sessions", "list").stdout
    assert "\x1b" not in shown
    assert "\\x1b[31mred" in shown
    assert name in shown


def test_an_empty_database_names_the_command_to_run(tmp_path: Path) -> None:
    """Without the tables every command says `lifecycle db upgrade`."""
    shell = Shell.__new__(Shell)
    shell.folder = tmp_path
    assert "lifecycle db upgrade" in shell.run("stats", code=11).stderr


def test_every_error_has_an_exit_code_and_a_status() -> None:
    """The table answers for each class of the tree, and success is none of them."""
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.LifecycleError)
    ]
    assert set(FAULTS) <= set(kinds)
    assert all(exit_code(kind) and 400 <= http_status(kind) < 600 for kind in kinds)


def test_the_diagram_follows_the_table() -> None:
    """Every trigger and state is drawn; one that is added appears."""
    drawn = svg()
    assert all(f">{name}<" in drawn for name in (*states.STATES, *states.TRIGGERS))
    assert ">archive<" in svg(table=(*states.TRANSITIONS, states.Transition("archive", ("ended",), "kept")))
