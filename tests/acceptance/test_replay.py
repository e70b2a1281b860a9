"""The replay of recorded runs: killed again and again, it loses no step; then the worker takes exactly what is its own.

What is expected is computed from the files and the seed, never from the store. LIFECYCLE_REPLAY_COPIES=200 makes as
many sessions of each file as the replay does by default.
"""

import contextlib
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from examples.recordings import FATES, Replay, replays
from lifecycle import SessionManager, load_settings, urls
from lifecycle.models import tables as t

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "replay.py"
FILES = sorted((ROOT / "examples" / "trajectories").glob("*.traj"))
COPIES = int(os.environ.get("LIFECYCLE_REPLAY_COPIES", "5"))
SEED = 7
KILLS = 6
PATIENCE = 60.0 + COPIES

# Sessions being worked on have all the time of the world; only the abandoned ones' kind and the old ones' is short.
CONFIG = """
database: {url: "%s"}
policies:
  kinds:
    chat: {idle: 2s, retention: 30d}
    cron: {idle: 30d, retention: 2s}
    copilot: {idle: 30d, retention: 30d}
worker:
  heartbeat: 1s
  jobs:
    expire_idle: {every: 1s}
    prune_sessions: {every: 1s}
    delete_ghosts: {every: 1s}
logging: {level: debug, format: json}
"""


class Stage:
    """A database and a configuration, and the processes that work with both."""

    def __init__(self, url: str, folder: Path) -> None:
        self.config = folder / "config.yaml"
        self.config.write_text(CONFIG % url)
        self.log = folder / "worker.log"
        self.environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.engine = sa.create_engine(urls.engine_url(url), isolation_level="AUTOCOMMIT")

    def replay(self, *more: str) -> list[str]:
        """The command of the replay."""
        settings = ["--config", str(self.config), "--copies", str(COPIES), "--seed", str(SEED)]
        return [sys.executable, str(SCRIPT), *settings, *more]

    def replayed(self, *more: str) -> Any:
        """Run the replay to its end; the summary that it printed."""
        done = subprocess.run(
            self.replay("--json", *more), env=self.environment, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def kill_a_replay_at(self, steps: int) -> None:
        """Start the replay, and kill it once so many steps are saved."""
        with subprocess.Popen(self.replay(), env=self.environment, stdout=subprocess.DEVNULL) as process:

            def reached() -> bool:
                assert process.poll() is None, "the replay ended before it was killed"
                return self.saved() >= steps

            until(reached, f"{steps} saved steps", pause=0.001)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL

    @contextlib.contextmanager
    def worker(self, **environment: str) -> Iterator[None]:
        """A daemon that runs meanwhile, and ends in good order."""
        command = [sys.executable, "-m", "lifecycle.cli", "--config", str(self.config), "worker"]
        with (
            self.log.open("wb") as log,
            subprocess.Popen(command, env=self.environment | environment, stderr=log) as process,
        ):
            try:
                until(lambda: self.events("worker_started"), "the worker to start")
                yield
                assert process.poll() is None, self.log.read_text()
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE) == 0
            finally:
                process.kill()
        assert not [event for event in self.events() if event["level"] in {"warning", "error", "critical"}]

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """What the worker logged so far."""
        lines = self.log.read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in found if name in {None, event["event"]}]

    def runs(self) -> dict[str, int]:
        """How often each sweep ran so far."""
        names = [event["sweep"] for event in self.events("sweep_done")]
        return {name: names.count(name) for name in ("expire_idle", "prune_sessions", "delete_ghosts")}

    def rows(self, statement: sa.Select[Any]) -> list[Any]:
        """What a statement reads."""
        with self.engine.connect() as connection:
            return list(connection.execute(statement))

    def saved(self) -> int:
        """How many steps are saved."""
        return int(self.rows(sa.select(sa.func.coalesce(sa.func.sum(t.sessions.c.step), 0)))[0][0])

    def states(self) -> dict[str, str]:
        """The state of each session that is there."""
        return {row[0]: row[1] for row in self.rows(sa.select(t.sessions.c.session_id, t.sessions.c.state))}

    def ids(self, table: sa.Table, *conditions: Any) -> set[str]:
        """The sessions that a table has rows of."""
        return {row[0] for row in self.rows(sa.select(table.c.session_id).where(*conditions).distinct())}


def until(condition: Callable[[], Any], what: str, pause: float = 0.05) -> None:
    """Poll until the condition holds; fail when it takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE:.0f} s for {what}")
        time.sleep(pause)


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """A stage on each database in turn."""
    names = {"sqlite": "migrated_sqlite_url", "postgresql": "migrated_postgres_url", "mariadb": "migrated_mariadb_url"}
    built = Stage(str(request.getfixturevalue(names[request.param])), tmp_path)
    yield built
    built.engine.dispose()


def printed(file: Path, document: Any) -> str:
    """A document in the layout of its file."""
    _, second, *_ = file.read_text().splitlines()
    return json.dumps(document, indent=len(second) - len(second.lstrip()))


def rebuilt(manager: SessionManager, replay: Replay, original: dict[str, Any]) -> dict[str, Any]:
    """The recorded run as the store has it: steps from the saved conversation, history from the messages."""
    state = manager.load_state(replay.session_id, any_state=True)
    assert state is not None
    history = []
    for entry, message in zip(original["history"], manager.get_messages(replay.session_id, limit=500), strict=False):
        fields = {"role": message.role, "content": message.content, "agent": message.agent_id} | message.metadata
        assert fields.keys() == entry.keys()
        # The order of an entry's own fields is no part of a message: the file's is taken.
        history.append({name: fields[name] for name in entry})
    if "trajectory" in original:
        return original | {"trajectory": state.conversation, "history": history}
    assert [entry for turn in state.conversation for entry in turn] == history
    return original | {"history": history}


def assert_files_come_back(config: Path, plan: list[Replay]) -> None:
    """A session that got all its steps gives back its file to the byte, an abandoned one the file's beginning."""
    files = {file.stem: file for file in FILES}
    whole = set()
    with SessionManager.open(load_settings(config)) as manager:
        for replay in plan:
            file = files[replay.title]
            original = json.loads(file.read_bytes())
            text = printed(file, rebuilt(manager, replay, original))
            if replay.fate.name != "abandoned":
                assert text.encode() == file.read_bytes()
                whole.add(file)
            said = sum(len(step.messages) for step in replay.steps)
            beginning = original | {"history": original["history"][:said]}
            if "trajectory" in original:
                beginning["trajectory"] = original["trajectory"][: len(replay.steps)]
            assert text == printed(file, beginning)
    assert whole == set(FILES)


@pytest.mark.timeout(300 + 10 * COPIES)
def test_a_killed_replay_loses_nothing_and_the_worker_takes_its_own(stage: Stage) -> None:
    """After each kill it goes on, to end byte for byte as the files say; then abandoned ones expire and old ones go."""
    plan = list(replays(FILES, COPIES, SEED))
    fated = {fate.name: {replay.session_id for replay in plan if replay.fate == fate} for fate in FATES}
    assert len(FILES) == 7
    assert all(fated.values())
    total = sum(len(replay.steps) for replay in plan)

    # A worker is beside it from the start; it prunes nothing before all is compared.
    chance = random.Random(SEED)
    with stage.worker(LIFECYCLE_WORKER__JOBS__PRUNE_SESSIONS__ENABLED="false"):
        for _ in range(KILLS):
            stage.kill_a_replay_at(stage.saved() + chance.randint(1, total // 8))
        before = stage.saved()
        assert 0 < before < total
        done = stage.replayed()
        assert (done["steps"], done["saved"]) == (total, total - before)
        kept = {replay.session_id: replay.fate.settled.replace("pruned", "completed") for replay in plan}
        until(lambda: stage.states() == kept, "the abandoned ones to expire")
        found = stage.replayed("--verify")
        assert (found["wrong"], found["compared"], found["waiting"]) == ([], len(plan), len(fated["old"]))
        assert_files_come_back(stage.config, plan)
        assert stage.replayed()["saved"] == 0

    wanted = {replay.session_id: replay.fate.settled for replay in plan if replay.fate.settled != "pruned"}
    with stage.worker():
        until(lambda: stage.states() == wanted, "the old ones to be pruned")
        runs = stage.runs()
        until(lambda: all(stage.runs()[name] > count + 1 for name, count in runs.items()), "more sweeps")
    assert stage.states() == wanted

    expired = stage.ids(t.transitions, t.transitions.c.trigger_name == "expire")
    removed = stage.ids(t.transitions, t.transitions.c.trigger_name == "delete")
    assert (expired, removed) == (fated["abandoned"], fated["old"])
    for table in (t.session_states, t.messages):
        assert stage.ids(table) == wanted.keys()
    found = stage.replayed("--verify")
    assert (found["wrong"], found["waiting"], found["compared"]) == ([], 0, len(wanted))
    assert found["states"]["old"] == {"pruned": len(fated["old"])}
    # Started once more it knows the pruned ones, and begins none of them again.
    assert stage.replayed()["saved"] == 0
    assert stage.states() == wanted


@pytest.fixture
def small_stage(migrated_sqlite_url: str, tmp_path: Path) -> Iterator[Stage]:
    """A stage on SQLite."""
    built = Stage(migrated_sqlite_url, tmp_path)
    yield built
    built.engine.dispose()


def test_a_stopped_replay_says_how_to_go_on(small_stage: Stage) -> None:
    """Ctrl-C ends it with 130 and the command to continue with; that one saves the rest."""
    with subprocess.Popen(
        small_stage.replay("--json"), env=small_stage.environment, stderr=subprocess.PIPE, text=True
    ) as process:
        until(lambda: small_stage.saved() >= 5, "some steps", pause=0.001)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    (line,) = said.splitlines()
    before = small_stage.saved()
    command = shlex.split(line.partition("To go on: ")[2])
    done = subprocess.run(command, env=small_stage.environment, check=True, stdout=subprocess.PIPE)
    total = sum(len(replay.steps) for replay in replays(FILES, COPIES, SEED))
    assert json.loads(done.stdout)["saved"] == total - before
    assert small_stage.saved() == total


def test_the_comparison_sees_every_difference(small_stage: Stage) -> None:
    """A changed byte of a step, of a message or of the last state, a missing message, a wrong state: each is told."""
    small_stage.replayed("--copies", "2")
    plan = [replay for replay in replays(FILES, 2, SEED) if replay.fate.left == "completed"][:6]
    step, message, lost, last, state, gone = (replay.session_id for replay in plan)
    states, messages = t.session_states.c, t.messages.c
    first = messages.message_id == "1-0"
    with small_stage.engine.connect() as connection:
        for change in (
            sa.update(t.entries).where(t.entries.c.session_id == step).values(
                content=sa.func.replace(t.entries.c.content, "a", "b")
            ),
            sa.update(t.messages).where(messages.session_id == message, first).values(content=messages.content + " "),
            sa.delete(t.messages).where(messages.session_id == lost, first),
            sa.update(t.session_states).where(states.session_id == last).values(plan='"another"'),
            sa.update(t.sessions).where(t.sessions.c.session_id == state).values(state="ended"),
            sa.delete(t.sessions).where(t.sessions.c.session_id == gone),
        ):  # fmt: skip
            connection.execute(change)
    command = small_stage.replay("--copies", "2", "--verify")
    done = subprocess.run(command, env=small_stage.environment, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert set(done.stderr.splitlines()) == {
        f"{step}: its steps differ from the file's",
        f"{message}: its messages differ from the file's",
        f"{lost}: its messages differ from the file's",
        f"{last}: its last state differs from the file's",
        f"{state}: ended, not completed",
        f"{gone}: missing, not completed",
    }
