"""Export and import at the command line: what comes back is what was there, from any database into any other.

LIFECYCLE_TRANSFER_SESSIONS=100000 makes the first test a measurement; `pytest -s` shows its figures.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lifecycle import migrate
from tests.populations import digests, populate

ROOT = Path(__file__).resolve().parents[2]
SESSIONS = int(os.environ.get("LIFECYCLE_TRANSFER_SESSIONS", "600"))
MESSAGES = 10
MOST_MEGABYTES = 200
DATABASES = ("sqlite", "postgres", "postgres15", "mariadb")

# The memory of a process starts with its parent's; this parent is small.
_LAUNCHER = """
import resource, subprocess, sys
code = subprocess.call([sys.executable, "-m", "lifecycle.cli", *sys.argv[1:]])
sys.stderr.write(f"\\nmegabytes: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f}\\n")
sys.exit(code)
"""


def command(url: str, *words: str) -> list[str]:
    """The command line of a process."""
    return [sys.executable, "-m", "lifecycle.cli", "--url", url, *words]


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that finds the package."""
    return os.environ | {"PYTHONPATH": str(ROOT)} | more


def run(folder: Path, url: str, *words: str, code: int = 0) -> tuple[str, str]:
    """Run a command in a process: what it printed, on both."""
    done = subprocess.run(
        command(url, *words), cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def measured(folder: Path, url: str, *words: str) -> dict[str, Any]:
    """Run a command in a process: its report, with the memory it took at its peak."""
    done = subprocess.run(
        [sys.executable, "-c", _LAUNCHER, "--url", url, *words, "--json"],
        cwd=folder, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    report["megabytes"] = int(done.stderr.split("megabytes: ")[1])
    kind, _, _ = url.partition(":")
    print(  # noqa: T201 -- the figures of a measurement
        f"{words[0]} {kind}: {report['rows_total']:,} rows in {report['seconds']:.2f} s, {report['rows_per_second']:,}"
        f" rows/s, {report['bytes'] / 1e6:.1f} MB, peak {report['megabytes']} MB"
    )
    return report


def url_of(request: pytest.FixtureRequest, database: str) -> str:
    """The URL of a database with the schema in place and no rows."""
    return str(request.getfixturevalue(f"migrated_{database}_url"))


def sqlite_at(file: Path) -> str:
    """The URL of a new SQLite database with the schema in place."""
    url = f"sqlite:///{file}"
    migrate.upgrade(url)
    return url


@pytest.mark.timeout(3600)
def test_from_postgresql_into_sqlite_and_back(
    migrated_postgres_url: str, postgres_url: str, migrated_sqlite_url: str, tmp_path: Path
) -> None:
    """Every table of all three is equal in the end, and no process took more memory for more rows."""
    migrate.upgrade(postgres_url)
    populate(migrated_postgres_url, SESSIONS, MESSAGES)
    reports = [
        measured(tmp_path, migrated_postgres_url, "export", "there.jsonl.zst"),
        measured(tmp_path, migrated_sqlite_url, "import", "there.jsonl.zst"),
        measured(tmp_path, migrated_sqlite_url, "export", "back.jsonl.zst"),
        measured(tmp_path, postgres_url, "import", "back.jsonl.zst"),
    ]
    expected = digests(migrated_postgres_url)
    assert expected["sessions"].startswith(f"{SESSIONS} rows")
    assert expected["session_messages"].startswith(f"{SESSIONS * MESSAGES} rows")
    assert digests(migrated_sqlite_url) == expected
    assert digests(postgres_url) == expected
    assert all(report["rows_per_second"] > 0 for report in reports)
    assert max(report["megabytes"] for report in reports) < MOST_MEGABYTES


@pytest.mark.parametrize("database", DATABASES)
def test_an_import_that_is_killed_left_nothing(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Wherever it was: the next one finds an empty database, and stores all of it."""
    source, url, file = sqlite_at(tmp_path / "source.db"), url_of(request, database), tmp_path / "source.jsonl"
    populate(source, 3000, 3)
    run(tmp_path, source, "export", file.name)
    data = file.read_bytes()
    empty = digests(url)
    for part in (0.1, 0.6, 0.99):
        # Fed through a pipe that stays open: it has taken so much of it when it is killed, and waits for more.
        with subprocess.Popen(
            command(url, "import", "-"), cwd=tmp_path, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            process.stdin.write(data[: int(len(data) * part)])
            process.stdin.flush()
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    assert digests(url) == empty
    run(tmp_path, url, "import", file.name)
    assert digests(url) == digests(source)


def test_an_export_that_is_killed_has_no_name(migrated_sqlite_url: str, tmp_path: Path) -> None:
    """What it wrote so far is beside it, under a name that no import is given by mistake; the next one is whole."""
    populate(migrated_sqlite_url, 3000, 3)
    with subprocess.Popen(
        command(migrated_sqlite_url, "export", "a.jsonl"), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE
    ) as process:
        while not list(tmp_path.glob(".a.jsonl.*.tmp")):
            assert process.poll() is None
        process.kill()
    assert not (tmp_path / "a.jsonl").exists()
    run(tmp_path, migrated_sqlite_url, "export", "a.jsonl")
    assert run(tmp_path, sqlite_at(tmp_path / "b.db"), "import", "a.jsonl", "--dry-run")


def test_ctrl_c_leaves_nothing(migrated_sqlite_url: str, tmp_path: Path) -> None:
    """Neither rows nor a file."""
    with subprocess.Popen(
        command(migrated_sqlite_url, "import", "-"), cwd=tmp_path, env=environment(), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(f'{{"lifecycle":{{"format":1,"schema":"{migrate.head()}"}}}}\n')
        process.stdin.flush()
        status = Path(f"/proc/{process.pid}/wchan")
        while "pipe" not in status.read_text():  # it waits for the next line
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert (process.returncode, said) == (130, "")


def test_the_commands(migrated_sqlite_url: str, tmp_path: Path) -> None:
    """A pipe between two databases, what is printed where, and the exit codes."""
    populate(migrated_sqlite_url, 30, 2)
    other = sqlite_at(tmp_path / "other.db")
    exporting = subprocess.Popen(
        command(migrated_sqlite_url, "export", "-", "--kind", "cron"), cwd=tmp_path, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    importing = subprocess.run(
        command(other, "import", "-", "--json"), cwd=tmp_path, env=environment(), stdin=exporting.stdout,
        capture_output=True, check=True,
    )  # fmt: skip
    _, told = exporting.communicate()
    assert "rows/s" in told.decode()
    assert json.loads(importing.stdout)["sessions"] == 10

    shown, _ = run(tmp_path, migrated_sqlite_url, "export", "all.jsonl.zst")
    assert "rows_per_second" in shown
    _, said = run(tmp_path, migrated_sqlite_url, "export", "all.jsonl.zst", code=2)
    assert "--overwrite" in said
    run(tmp_path, migrated_sqlite_url, "export", "all.jsonl.zst", "--overwrite")
    _, said = run(tmp_path, other, "import", "all.jsonl.zst", code=5)
    assert "--on-conflict skip or replace" in said
    done, _ = run(tmp_path, other, "import", "all.jsonl.zst", "--on-conflict", "skip", "--json")
    assert (json.loads(done)["sessions"], json.loads(done)["skipped"]) == (20, 10)
    run(tmp_path, other, "import", "all.jsonl.zst", "--on-conflict", "never", code=2)
    assert digests(other, without=("txid", "id")) == digests(migrated_sqlite_url, without=("txid", "id"))

    data = (tmp_path / "all.jsonl.zst").read_bytes()
    (tmp_path / "cut.zst").write_bytes(data[: len(data) // 2])
    _, said = run(tmp_path, other, "import", "cut.zst", code=65)
    assert said.startswith("error: cut.zst: ")
    assert "cut off" in said
    _, said = run(tmp_path, other, "import", "none.zst", code=74)
    assert "No such file" in said
    _, said = run(tmp_path, other, "--tenant", "t1", "import", "all.jsonl.zst", code=65)
    assert "tenant" in said
    run(tmp_path, f"sqlite:///{tmp_path}/absent.db", "import", "all.jsonl.zst", code=11)
    one, _ = run(tmp_path, other, "--tenant", "t1", "export", "t1.jsonl", "--json")
    assert json.loads(one)["sessions"] == 10


def test_a_full_disk_is_told(migrated_sqlite_url: str, tmp_path: Path) -> None:
    """Nothing is left of the file."""
    populate(migrated_sqlite_url, 300, 3)
    limited = ["sh", "-c", 'ulimit -f 100; trap "" XFSZ; exec "$@"', "sh"]
    done = subprocess.run(
        [*limited, *command(migrated_sqlite_url, "export", "a.jsonl")], cwd=tmp_path, env=environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 74
    assert "cannot write a.jsonl: File too large" in done.stderr
    assert not [path for path in tmp_path.iterdir() if "a.jsonl" in path.name]
