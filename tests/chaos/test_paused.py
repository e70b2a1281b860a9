"""A holder that was stopped for longer than its lease lives: it wakes up to LeaseLost, and writes nothing."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lifecycle import SessionManager

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys
from lifecycle import LeaseLost, SessionManager

with SessionManager.open(sys.argv[1]) as manager, manager.lease("s", ttl=1, heartbeat=0.1) as lease:
    manager.save_state("s", step=1, lease=lease)
    print("held", flush=True)
    sys.stdin.readline()
    try:
        manager.save_state("s", step=2, lease=lease)
        print("written", flush=True)
    except LeaseLost:
        print("lost", lease.lost.wait(10), flush=True)
"""


@pytest.mark.parametrize("taken_over", [True, False])
def test_a_stopped_holder_ends_in_lease_lost(shared_url: str, *, taken_over: bool) -> None:
    """Whether somebody took over meanwhile or nobody did."""
    with SessionManager.open(shared_url) as manager:
        manager.create_session(session_id="s")
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, shared_url], env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as holder:  # fmt: skip
            assert holder.stdin is not None
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            holder.send_signal(signal.SIGSTOP)
            deadline = time.monotonic() + 30
            while True:
                session = manager.get_session("s")
                assert session is not None
                assert session.lease_expires_at is not None
                if session.lease_expires_at < datetime.now(UTC):
                    break
                assert time.monotonic() < deadline
                time.sleep(0.02)
            if taken_over:
                with manager.lease("s", holder="second") as lease:
                    manager.save_state("s", step=5, lease=lease)
            holder.stdin.write("\n")
            holder.stdin.flush()
            holder.send_signal(signal.SIGCONT)
            assert holder.stdout.read() == "lost True\n"
            assert holder.wait(30) == 0
        state = manager.load_state("s")
        assert state is not None
        assert state.step == (5 if taken_over else 1)
