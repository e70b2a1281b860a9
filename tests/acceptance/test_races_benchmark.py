"""The races of the benchmark, run as a person runs them, with few rounds."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.races.tally import Tally

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 4
RACES = {"paused holder": ROUNDS, "two servers": 2 * ROUNDS, "false death": 3 * ROUNDS}  # and how many writes race
PATIENCE = 200  # seconds: far more than it takes


def command(*options: str) -> list[str]:
    """The command with these options."""
    return [sys.executable, "-m", "benchmarks.races", *options]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    """What the command printed, and how it ended."""
    return subprocess.run(
        command(*options), cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE
    )  # fmt: skip


@pytest.fixture(scope="module")
def printed(postgres_server: object) -> Any:  # noqa: ARG001 - skips where the machine has no PostgreSQL
    """The JSON of one run."""
    done = run("--rounds", str(ROUNDS), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ours(printed: Any, *uses: str) -> dict[tuple[str, str], Any]:
    """The results of these uses of Lifecycle, by use and race."""
    return {
        (result["use"], result["race"]): result
        for result in printed["results"]
        if result["store"] == "Lifecycle" and result["use"] in uses
    }


def test_guarded_writes_are_refused_when_stale(printed: Any) -> None:
    """Under expected_version and under a lease no stale write is accepted, and no acknowledged one is lost."""
    results = ours(printed, "expected_version", "lease")
    assert set(results) == {(use, race) for use in ("expected_version", "lease") for race in RACES}
    for (_, race), result in results.items():
        rightful = ROUNDS if race == "two servers" else 0
        assert (result["rounds"], result["writes"]) == (ROUNDS, RACES[race])
        assert (result["accepted"], result["stale"]) == (rightful, 0)
        assert sum(result["refused"].values()) == RACES[race] - rightful
        assert (result["lost"], result["misled"], result["forked"]) == (0, 0, 0)
    assert {key: list(result["refused"]) for key, result in results.items()} == {
        **{("expected_version", race): ["VersionConflict"] for race in RACES},
        ("lease", "paused holder"): ["LeaseLost"],
        ("lease", "two servers"): ["SessionBusy"],
        ("lease", "false death"): ["LeaseLost"],
    }


def test_the_races_are_ones_that_can_be_lost(printed: Any) -> None:
    """Without a guard every stale write lands, and every round loses an acknowledged one."""
    for (_, race), result in ours(printed, "neither").items():
        assert not result["guarded"]
        assert result["stale"] == (ROUNDS if race == "two servers" else RACES[race])
        assert result["refused"] == {}
        assert result["lost"] == ROUNDS


def test_a_fenced_graph_refuses_every_stale_write(printed: Any) -> None:
    """LangGraph's checkpoints under a lease: none is accepted that was computed from an old state."""
    results = [result for result in printed["results"] if result["use"] == "LifecycleSaver, lease"]
    if not results:
        pytest.skip("langgraph-checkpoint is not installed")
    assert {result["race"] for result in results} == set(RACES)
    for result in results:
        assert result["guarded"]
        assert (result["stale"], result["lost"], result["misled"], result["forked"]) == (0, 0, 0, 0)
        rightful = ROUNDS if result["race"] == "two servers" else 0
        assert (result["writes"], result["accepted"]) == (RACES[result["race"]], rightful)


def test_only_a_lease_keeps_a_former_holder_out_for_good(printed: Any) -> None:
    """Who reads anew may write under expected_version, at the cost of the successor; under a lease it may not."""
    results = ours(printed, "expected_version", "lease")
    versioned, leased = (results[use, "false death"] for use in ("expected_version", "lease"))
    assert (versioned["again"], versioned["again_accepted"], versioned["successor_refused"]) == (ROUNDS,) * 3
    assert (leased["again"], leased["again_accepted"], leased["successor_refused"]) == (ROUNDS, 0, 0)
    assert leased["again_refused"] == {"SessionBusy": ROUNDS}


def test_adapters_refuse_stale_writes(printed: Any) -> None:
    """Where the frameworks are installed: none is accepted through the adapters, and none that was acknowledged is lost."""
    uses = ("LifecycleSessionService", "LifecycleSession, lease")
    results = [result for result in printed["results"] if result["use"] in uses]
    if not results:
        pytest.skip("; ".join(one["why"] for one in printed["missing"] if one["use"] in uses))
    for result in results:
        assert result["guarded"]
        assert (result["stale"], result["lost"], result["misled"]) == (0, 0, 0), result


def test_the_json_has_every_store(printed: Any) -> None:
    """Each store has its results, or says what is missing and how to install it; with the versions it ran on."""
    assert set(printed) == {"rounds", "seed", "versions", "results", "missing"}
    assert (printed["rounds"], printed["seed"]) == (ROUNDS, 1)
    assert {"Python", "PostgreSQL", "session-lifecycle"} <= set(printed["versions"])
    for result in printed["results"]:
        assert set(result) == {"store", "use", "guarded", *Tally.__slots__}
    for absent in printed["missing"]:
        assert set(absent) == {"store", "use", "why"}
        assert "benchmarks/peers-requirements.txt" in absent["why"]
    told = {(one["store"], one["use"]) for one in [*printed["results"], *printed["missing"]]}
    assert told == {
        ("Lifecycle", "expected_version"),
        ("Lifecycle", "lease"),
        ("Lifecycle", "neither"),
        ("LangGraph", "PostgresSaver"),
        ("LangGraph", "LifecycleSaver, lease"),
        ("Google ADK", "DatabaseSessionService"),
        ("Google ADK", "SqliteSessionService"),
        ("Google ADK", "LifecycleSessionService"),
        ("OpenAI Agents", "SQLAlchemySession"),
        ("OpenAI Agents", "LifecycleSession, lease"),
    }


@pytest.mark.parametrize(
    ("options", "named"),
    [(["--only", "redis"], "lifecycle, langgraph, adk, openai"), (["--rounds", "0"], "--rounds"),
     (["--write", "--only", "adk"], "--write")],
)  # fmt: skip
def test_misuse_is_told_before_anything_runs(options: list[str], named: str) -> None:
    """An option that makes no sense is named, and the exit code is 2."""
    done = run(*options)
    assert done.returncode == 2
    assert named in done.stderr
    assert done.stdout == ""


@pytest.mark.usefixtures("postgres_server")
def test_ctrl_c_leaves_no_process_behind() -> None:
    """Interrupted in the middle, it exits with 130, and its server and its actors are gone, stopped ones too."""
    with subprocess.Popen(
        command("--rounds", "100000", "--only", "lifecycle"),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
    ) as racing:  # fmt: skip
        try:
            deadline = time.monotonic() + PATIENCE
            # The holder is stopped in every round: by then all of them are there.
            children = below(racing.pid)
            while not any(map(stands_still, children)):
                assert racing.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.001)
                children = below(racing.pid)
            # As a terminal does it: to the whole group.
            os.killpg(racing.pid, signal.SIGINT)
            _, told = racing.communicate(timeout=PATIENCE)
        finally:
            racing.kill()
        assert racing.returncode == 130
        assert "stopped by Ctrl-C" in told
        assert psutil.wait_procs(children, timeout=PATIENCE)[1] == []


def below(pid: int) -> list[psutil.Process]:
    """The processes that this one started, and those that they did."""
    return psutil.Process(pid).children(recursive=True)


def stands_still(process: psutil.Process) -> bool:
    """Whether it is there and stopped."""
    try:
        return bool(process.status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False
