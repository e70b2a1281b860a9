"""The command line as people and agents use it: data on stdout, one line for a refusal, an exit code for each.

Most commands run inside the test's process, through the same `main`; what only a process shows has processes.
"""

import contextlib
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lifecycle import errors, states
from lifecycle.cli import main
from lifecycle.cli.diagram import svg
from lifecycle.faults import FAULTS, exit_code, http_status

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Done:
    """What came of a command."""

    stdout: str
    stderr: str


class Shell:
    """Runs commands on a database of its own."""

    def __init__(self, url: str, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str]) -> None:
        self.url = url
        self._patch = patch
        self._captured = captured

    def run(self, *words: str, code: int = 0) -> Done:
        """Run a command; its exit code is as expected and it shows no trace."""
        self._captured.readouterr()
        self._patch.setattr(sys, "argv", ["lifecycle", "--url", self.url, *words])
        with pytest.raises(SystemExit) as ended:
            main()
        done = Done(*self._captured.readouterr())
        assert ended.value.code == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    def json(self, *words: str) -> Any:
        """Run a command and read the JSON it prints."""
        return json.loads(self.run(*words).stdout)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Take back what a command does to the logging of its process."""
    loggers = [logging.getLogger(name) for name in (None, "sqlalchemy", "apscheduler", "alembic", "psycopg")]
    levels, handlers, pool = (
        [one.level for one in loggers],
        list(loggers[0].handlers),
        logging.getLogger("psycopg.pool"),
    )
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    loggers[0].handlers[:] = handlers
    pool.handlers.clear()
    pool.propagate = True
    logging.captureWarnings(capture=False)


@pytest.fixture
def fresh(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """A shell whose database does not exist yet, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    return Shell(sqlite_url, monkeypatch, capsys)


@pytest.fixture
def shell(migrated_sqlite_url: str, fresh: Shell) -> Shell:
    """A shell on an empty database."""
    assert fresh.url == migrated_sqlite_url
    return fresh


def process(folder: Path, *words: str, **options: Any) -> "subprocess.Popen[str]":
    """Start a command as a process, in a directory with the default database's file."""
    return subprocess.Popen(
        [sys.executable, "-m", "lifecycle.cli", *words], text=True, cwd=folder,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}, **options,
    )  # fmt: skip


def make_due(url: str, count: int) -> None:
    """Store sessions whose deadline is long past."""
    file = url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(sessions)")]
        values = {"session_id": "'due-' || n", "expires_at": "1", "ghost_at": "NULL"}
        chosen = ", ".join(values.get(name, f"s.{name}") for name in columns)
        numbers = f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})"
        connection.execute(f"{numbers} INSERT INTO sessions SELECT {chosen} FROM sessions s, numbers")


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


def test_the_other_commands_print_json_too(shell: Shell) -> None:
    """Totals, policies, configuration, schema and release."""
    assert shell.json("stats", "--json")["total"] == 0
    assert shell.json("policies", "show", "--json")[0]["kind"] == "(default)"
    assert shell.json("policies", "apply", "--dry-run", "--json")["changed"] == 0
    assert shell.json("config", "show")["database"]["url"] == shell.url
    assert shell.json("config", "check", "--json") == {"configuration": "ok"}
    assert shell.json("db", "check", "--json")["ok"] is True
    assert "lifecycle_schema" in shell.json("db", "sql", "--json")["sql"]
    assert "version" in shell.json("--json", "--version")


def test_call_runs_any_operation(shell: Shell) -> None:
    """`call` takes JSON and prints JSON, for every public operation."""
    assert shell.json("call", "create_session", '{"session_id": "b", "context": {"n": 1}}')["version"] == 1
    assert shell.json("call", "save_state", '{"session_id": "b", "append": [{"role": "user"}], "step": 3}') == 2
    assert shell.json("call", "load_state", '{"session_id": "b"}')["conversation"] == [{"role": "user"}]
    since = '{"since": "2026-01-01T00:00:00Z", "limit": 5, "metadata": null}'
    assert len(shell.json("call", "list_sessions", since)["items"]) == 1
    listed = shell.json("call", "--list", "--json")
    assert listed["get_session"] == "(session_id: str) -> Session | None"
    assert "lease" not in listed["save_state"]
    assert "get_session(session_id: str) -> Session | None\n    The session, or None" in shell.run("call").stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("sessions", "resume", "nobody"), 4, "no session 'nobody'"),
        (("sessions", "history", "nobody"), 4, "no session 'nobody'"),
        (("sessions", "messages", "nobody"), 4, "no session 'nobody'"),
        (("sessions", "delete", "nobody", "--yes"), 4, "no session 'nobody'"),
        (("sessions", "show", ""), 2, "1 to 255 characters"),
        (("sessions", "show"), 2, "(see `lifecycle sessions show --help`)"),
        (("sessions", "create", "--metadata", "{'a': 1}"), 2, "line 1 column 2, at \"'a': 1}\""),
        (("sessions", "create", "--metadata", "[1]"), 2, "must be a JSON object"),
        (("sessions", "create", "--idle-timeout", "1x"), 2, "30d"),
        (("sessions", "list", "--state", "asleep"), 2, "active, suspended"),
        (("sessions", "list", "--limit", "-1"), 2, "at least 1"),
        (("sessions", "list", "--limit", "few"), 2, "--limit"),
        (("sessions", "list", "--since", "yesterday"), 2, "2h for two hours ago"),
        (("sessions", "list", "--until", "2026-11-21T07:00"), 2, "write 2026-11-21T07:00:00Z"),
        (("--all-tenants", "sessions", "show", "a"), 2, "--tenant"),
        (("sweep", "prune", "--older-than", "1x"), 2, "30d"),
        (("sweep", "expire", "--batch", "0"), 2, "batch must be at least 1"),
        (("sweep", "expire", "--budget", "-1"), 2, "--budget"),
        (("sweep", "stale"), 2, "max_age"),
        (("call", "nope"), 2, "no operation 'nope'; `lifecycle call --list`"),
        (("call", "savestate"), 2, "did you mean save_state"),
        (("call", "get_session", "[1]"), 2, "JSON object"),
        (("call", "get_session", "[" * 100_000), 2, "JSON object"),
        (("call", "get_session", '{"session_id": }'), 2, "line 1 column 16"),
        (("call", "get_session", '{"wrong": 1}'), 2, "takes no 'wrong'; it takes session_id"),
        (("call", "get_session"), 2, "needs session_id"),
        (("call", "get_session", '{"session_id": 5}'), 2, "session_id must be text, not 5"),
        (("call", "list_sessions", '{"limit": true}'), 2, "limit must be a whole number, not True"),
        (("call", "list_sessions", '{"since": "2026-11-21T07:00"}'), 2, "since: '2026-11-21T07:00' has no time zone"),
        (("call", "list_sessions", '{"since": 5}'), 2, "since must be a time or null, not 5"),
        (("call", "add_messages", '{"session_id": "a", "messages": [5]}'), 2, "a list, each an object"),
        (("call", "renew_leases", '{"holder": "a", "leases": [[1]]}'), 2, "each a list of 4"),
        (("call", "open_session", '{"session_id": "a", "knd": 1}'), 2, "did you mean kind"),
        (("--bogus",), 2, "--bogus (see `lifecycle --help`)"),
        (("--json",), 2, "Missing command"),
        (("--config", "missing.yaml", "stats"), 78, "missing.yaml"),
        (("--config", ".", "stats"), 78, "cannot be read"),
        (("--url", "oracle://u:secret@h/x", "config", "check"), 78, "--url: database.url"),
        (("db", "check", "--url", "oracle://u:secret@h/x"), 2, "sqlite://"),
        (("db", "downgrade", "nosuch", "--yes"), 2, "nosuch"),
        (("--tenant", "a", "--all-tenants", "sweep", "expire"), 2, "exclude each other"),
        (("--url", "sqlite:///.", "stats"), 75, "is a directory"),
        (("--url", "sqlite:///none/x.db", "db", "upgrade"), 75, "no directory none"),
        (("--url", "sqlite:///other.db", "stats"), 11, "run: lifecycle db upgrade"),
        (("--url", "mysql://u:secret@127.0.0.1:1/x", "stats"), 75, "Connection refused"),
        (("diagram", "--state", "asleep"), 2, "active, suspended"),
    ],
)
def test_a_refusal_is_one_clear_line(shell: Shell, words: tuple[str, ...], code: int, says: str) -> None:
    """What is wrong, what is allowed, and the exit code of its kind; never a trace, a password or a new file."""
    done = shell.run(*words, code=code)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert "secret" not in line
    assert done.stdout == ""
    assert not Path("other.db").exists()


def test_a_server_that_is_not_there_is_told_with_the_reason(shell: Shell, tmp_path: Path) -> None:
    """The pool's own warnings are not printed; the last of them is the reason in our error."""
    (tmp_path / "wait.yaml").write_text("database: {connect_timeout: 2s}")
    url = "postgresql://u:secret@127.0.0.1:1/x"
    (line,) = shell.run("--config", "wait.yaml", "--url", url, "--json", "stats", code=75).stderr.splitlines()
    assert line.startswith("error: no connection to PostgreSQL within 2 s: ")
    assert "Connection refused" in line


def test_a_file_that_is_no_database_is_told(shell: Shell, tmp_path: Path) -> None:
    """It is left as it is."""
    (tmp_path / "text.db").write_text("not a database, " * 50)
    for words in (("stats",), ("db", "current"), ("sessions", "list")):
        assert "not a database" in shell.run("--url", "sqlite:///text.db", *words, code=75).stderr
    assert (tmp_path / "text.db").read_text() == "not a database, " * 50


def test_lists_filter_count_and_page(shell: Shell) -> None:
    """The filters of `list_sessions` have options; a time may be an age."""
    for name in ("a", "b", "c"):
        shell.run("sessions", "create", "--id", name, "--parent", "top" if name == "c" else "none")
    page = shell.json("sessions", "list", "--count", "--since", "2h", "--limit", "1", "--offset", "1", "--json")
    assert (page["total"], len(page["items"]), page["has_more"]) == (3, 1, True)
    assert [one["session_id"] for one in shell.json("sessions", "list", "--parent", "top", "--json")["items"]] == ["c"]
    assert shell.json("sessions", "list", "--until", "1h", "--json")["items"] == []
    done = shell.run("sessions", "list", "--count", "--limit", "1", "--since", "2026-01-01T00:00:00+02:00")
    assert "total: 3" in done.stdout
    assert "more: --cursor" in done.stderr


def test_a_sweep_goes_by_batches_within_its_budget(shell: Shell) -> None:
    """A budget ends it after a batch; the report adds the batches up."""
    shell.run("sessions", "create", "--id", "pattern")
    make_due(shell.url, 5)
    report = shell.json("sweep", "expire", "--batch", "2", "--budget", "0", "--json")
    assert (report["count"], report["batches"], report["complete"]) == (2, 1, False)
    report = shell.json("sweep", "expire", "--batch", "2", "--json")
    assert (report["count"], report["complete"], len(report["session_ids"])) == (3, True, 3)
    assert report["backlog_age"] > 3600
    assert shell.json("sweep", "stale", "1h", "--batch", "1", "--budget", "1", "--json")["count"] == 0


def test_help_and_diagram_need_no_configuration(shell: Shell) -> None:
    """A broken configuration does not keep anybody from reading what commands there are."""
    Path("broken.yaml").write_text("database: [")
    assert "--state" in shell.run("--config", "broken.yaml", "sessions", "list", "--help").stdout
    assert "suspend" in shell.run("--config", "broken.yaml", "diagram").stdout
    assert "db" in shell.run("--config", "broken.yaml", "--help").stdout
    assert "broken.yaml" in shell.run("--config", "broken.yaml", "stats", code=78).stderr


def test_a_worker_that_is_refused_says_so_by_its_exit_code(fresh: Shell) -> None:
    """A schema that is missing is no crash to restart from."""
    assert "lifecycle db upgrade" in fresh.run("worker", code=11).stderr


def test_an_empty_database_names_the_command_to_run(fresh: Shell) -> None:
    """Without a file, and without the tables, every command says `lifecycle db upgrade`, which then works quietly."""
    assert "lifecycle db upgrade" in fresh.run("stats", code=11).stderr
    file = Path(fresh.url.removeprefix("sqlite:///"))
    assert not file.exists()
    file.touch()
    assert "lifecycle db upgrade" in fresh.run("stats", code=11).stderr
    done = fresh.run("db", "upgrade")
    assert (done.stdout.startswith("upgraded from nothing"), done.stderr) == (True, "")
    assert fresh.run("db", "upgrade").stdout.startswith("already at")


def test_what_others_wrote_does_not_steer_the_terminal(shell: Shell) -> None:
    """An escape sequence in a title is shown, not obeyed, and a pipe gets ids uncut."""
    name = "x" * 60
    shell.run("sessions", "create", "--id", name, "--title", "\x1b[31mred")
    shown = shell.run("sessions", "list").stdout
    assert "\x1b" not in shown
    assert "\\x1b[31mred" in shown
    assert name in shown


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


def test_ctrl_c_ends_a_sweep_between_two_batches(shell: Shell, tmp_path: Path) -> None:
    """It prints what was done, as the report and in words, and exits with 130; the database says the same."""
    shell.run("sessions", "create", "--id", "pattern")
    make_due(shell.url, 20_000)
    sweep = process(tmp_path, "sweep", "expire", "--batch", "1", "--json")
    with contextlib.closing(sqlite3.connect(tmp_path / "lifecycle.db")) as connection:
        expired = "SELECT count(*) FROM sessions WHERE state = 'expired'"
        deadline = time.monotonic() + 60
        while connection.execute(expired).fetchone() == (0,):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        sweep.send_signal(signal.SIGINT)
        out, err = sweep.communicate(timeout=60)
        assert sweep.returncode == 130
        report = json.loads(out)
        assert connection.execute(expired).fetchone() == (report["count"],)
    assert report["complete"] is False
    assert err.startswith(f"interrupted: {report['count']:,} done in ")
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [("sessions", "list"), ("diagram",), ("--help",), ("--version",)])
def test_a_reader_who_leaves_is_no_failure_to_talk_about(words: tuple[str, ...], shell: Shell, tmp_path: Path) -> None:
    """As with `| head`: nothing on stderr, and the exit code of a pipe that broke."""
    shell.run("sessions", "create", "--title", "t" * 150)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "lifecycle.cli", *words], cwd=tmp_path, stdout=write, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, check=False, timeout=60,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_process_ends_with_the_code_of_its_error(tmp_path: Path) -> None:
    """Success, a misuse, a missing schema, a full disk."""
    for words, code in ((("--version",), 0), (("nope",), 2), (("stats",), 11)):
        _, err = (command := process(tmp_path, *words)).communicate(timeout=60)
        assert (command.returncode, "Traceback" in err, len(err.splitlines())) == (code, False, int(bool(code)))
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lifecycle.cli", "diagram"], stdout=full, stderr=subprocess.PIPE, cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (74, "error: cannot write the output: No space left on device\n")
