"""The command line as people and agents use it: data on stdout, one line for a refusal, an exit code for each."""

import json
import os
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
    ],
)
def test_a_refusal_is_one_clear_line(shell: Shell, words: tuple[str, ...], code: int, says: str) -> None:
    """What is wrong, what is allowed, and the exit code of its kind; never a trace."""
    assert says in shell.run(*words, code=code).stderr


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
