"""The benchmark, run as a person runs it, with everything as small as it can be."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from benchmarks import asks, charts
from benchmarks.__main__ import NAMES, app

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 900  # seconds: ten times what it takes

# Every section with all its processes and servers: on a busy machine that takes its time.
pytestmark = pytest.mark.timeout(PATIENCE + 60)


def command(*options: str) -> list[str]:
    """The command with these options."""
    return [sys.executable, "-m", "benchmarks", *options]


@pytest.fixture(scope="module")
def written(postgres_server: object, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:  # noqa: ARG001 - skips where the machine has no PostgreSQL
    """The JSON of one run of every section, and the directory it wrote its page into."""
    folder = tmp_path_factory.mktemp("page")
    done = subprocess.run(
        command("--quick", "--json", "--into", str(folder)),
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), folder


def test_every_section_measures(written: tuple[Any, Path]) -> None:
    """Each registered section gives figures, or names the server that this machine does not have."""
    printed, _ = written
    assert set(printed["sections"]) | set(printed["left_out"]) == set(NAMES)
    assert all(printed["sections"].values())
    assert not any("failed" in why for why in printed["left_out"].values())
    assert set(printed["seconds"]) == set(NAMES)
    assert {"processor", "memory", "disk", "system", "servers", "packages", "settings", "load"} == set(
        printed["machine"]
    )


def test_operations_stand_beside_their_floor(written: tuple[Any, Path]) -> None:
    """On PostgreSQL and SQLite every operation has both times, with both managers."""
    printed, _ = written
    settings: dict[str, int] = {}
    for one in printed["sections"]["operations"]:
        settings[one["setting"]] = settings.get(one["setting"], 0) + 1
        assert one["floor_us"] > 0
        assert one["lifecycle_us"] > 0
    expected = {f"{database}, {kind}" for database in ("PostgreSQL", "SQLite") for kind in ("sync", "async")}
    assert expected <= set(settings)
    assert len(set(settings.values())) == 1


def test_what_is_asked_is_measured_where_it_can_be(written: tuple[Any, Path]) -> None:
    """Every bound is told of; what needs neither a peer nor a size has a figure."""
    printed, _ = written
    assert set(printed["asked"]) == set(asks.ASKS)
    measured = {name for name, one in printed["asked"].items() if one["measured"] is not None}
    assert {"turns, add_message, the floor", "turns, save_state(append=), the floor"} <= measured
    assert {"get_session", "load_state", "one caller, add_message", "one caller, save_state(append=)"} <= measured
    for name in measured:
        assert printed["asked"][name]["holds"] is asks.ASKS[name].holds(printed["asked"][name]["measured"])


def test_the_page_has_every_section(written: tuple[Any, Path]) -> None:
    """The page begins with what is asked and the machine, has a heading for each section, and only charts that exist."""
    printed, folder = written
    page = (folder / "benchmarks.md").read_text()
    headings = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert headings[:2] == ["What is asked of it", "The machine"]
    assert len(headings) == 2 + len(printed["sections"])
    for ask in asks.ASKS.values():
        assert ask.what in page
    pictures = re.findall(r"!\[[^]]+]\(([^)]+)\)", page)
    assert bool(pictures) is charts.drawable()
    assert all((folder / picture).is_file() for picture in pictures)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--only", "speed"], "storage"),
        (["--turns", "1"], "--turns"),
        (["--write", "--only", "http"], "--into"),
        (["--write", "--quick"], "--into"),
        (["--into", "/nowhere"], "/nowhere"),
    ],
)
def test_misuse_is_told_before_anything_runs(options: list[str], named: str) -> None:
    """An option that makes no sense is named, and the exit code is 2."""
    done = CliRunner().invoke(app, options, env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert named in done.stderr
    assert done.stdout == ""


@pytest.mark.usefixtures("postgres_server")
def test_ctrl_c_keeps_what_is_measured() -> None:
    """Interrupted behind its first section, it prints that one, exits with 130, and leaves no process behind."""
    with subprocess.Popen(
        command("--quick", "--only", "leases", "--only", "http", "--json"),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
    ) as measuring:  # fmt: skip
        try:
            assert measuring.stderr is not None
            for line in measuring.stderr:
                if line.startswith("1 of 2"):
                    break
            children = psutil.Process(measuring.pid).children(recursive=True)
            # As a terminal does it: to the whole group.
            os.killpg(measuring.pid, signal.SIGINT)
            printed, told = measuring.communicate(timeout=PATIENCE)
        finally:
            measuring.kill()
    assert measuring.returncode == 130
    assert "stopped by Ctrl-C" in told
    assert list(json.loads(printed)["sections"]) == ["leases"]
    assert psutil.wait_procs(children, timeout=PATIENCE)[1] == []
