"""The replay of recorded runs: killed again and again, it loses no step; then the sweeps take exactly what is theirs."""

import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from examples.replay import replays
from lifecycle import SessionManager, urls
from lifecycle.models import tables as t

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "trajectories"
COPIES = 12


def command(url: str, *more: str) -> list[str]:
    """The replay as a command."""
    script = str(ROOT / "examples" / "replay.py")
    return [sys.executable, script, str(FOLDER), "--url", url, "--copies", str(COPIES), *more]


def saves(url: str) -> int:
    """How many steps are saved so far."""
    with SessionManager.open(url) as manager:
        return sum(session.step or 0 for session in manager.list_sessions(limit=100).items)


def test_a_killed_replay_loses_nothing(migrated_url: str) -> None:
    """Killed at random points it ends byte for byte as the files say; abandoned ones expire, finished ones go."""
    chance = random.Random(7)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for _ in range(4):
        before = saves(migrated_url)
        process = subprocess.Popen(command(migrated_url), env=environment, stdout=subprocess.DEVNULL)
        goal = before + chance.randint(5, 25)
        while process.poll() is None and saves(migrated_url) < goal:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command(migrated_url), env=environment, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(command(migrated_url, "--verify"), env=environment, check=True, stdout=subprocess.DEVNULL)

    plan = list(replays(sorted(FOLDER.glob("*.traj")), COPIES, 1))
    abandoned = {replay.session_id for replay in plan if replay.fate == "abandoned"}
    past = datetime.now(UTC) - timedelta(days=1)
    engine = sa.create_engine(urls.engine_url(migrated_url))
    with engine.begin() as connection:
        live = t.sessions.c.state == "active"
        connection.execute(sa.update(t.sessions).where(live).values(expires_at=past))
        connection.execute(sa.update(t.sessions).where(~live).values(prune_at=past))
    engine.dispose()
    with SessionManager.open(migrated_url) as manager:
        assert set(manager.expire_idle().session_ids) == abandoned
        pruned = set(manager.prune_sessions().session_ids)
        assert pruned == {replay.session_id for replay in plan} - abandoned
        assert {session.session_id for session in manager.list_sessions(limit=100).items} == abandoned
