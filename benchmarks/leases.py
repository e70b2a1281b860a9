"""What it costs to keep many leases alive: CPU of the process, and what PostgreSQL has to write."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg

from lifecycle import SessionManager
from lifecycle.lease_keeper import keeper_for

_FILL = """
INSERT INTO sessions (tenant, session_id, kind, state, metadata, config, version, next_seq, created_at, updated_at,
  listed_at, last_active_at, idle_active, idle_suspended, expires_at, available_at, runs)
SELECT '', md5(i::text), 'agent', 'active', '{}', '{}', 1, 2, now(), now(), date_trunc('minute', now()), now(), 86400,
  2592000, now() + interval '1 day', now(), true
FROM generate_series(1, %(n)s) AS i
"""


SETTLING = 6  # beats


@dataclass(frozen=True, slots=True)
class LeaseCost:
    """So many leases kept for so long: beats (statements), CPU share of one core, row updates, heap-only ones."""

    leases: int
    seconds: float
    heartbeat: float
    beats: int
    cpu_share: float
    updates: int
    heap_only: int
    dead: int

    @property
    def heap_only_share(self) -> float:
        """Which part of the updates touched no index."""
        return self.heap_only / self.updates if self.updates else 0.0


def measure(
    url: str, leases: int, seconds: float, progress: Callable[[], None], *, heartbeat: float = 10.0
) -> LeaseCost:
    """Claim so many sessions, then watch the beats for so long. One `progress` a second."""
    with psycopg.connect(url, autocommit=True) as raw:
        raw.execute(_FILL, {"n": leases})
        raw.execute("VACUUM ANALYZE sessions")
        with SessionManager.open(url) as manager:
            held: list[Any] = []
            while len(held) < leases:
                held += manager.claim(["agent"], ttl=heartbeat * 3, heartbeat=heartbeat, limit=1000)
            keeper = keeper_for(manager)
            # The first beats spread the rows until each page has room for new versions: what lasts is measured.
            settled = time.monotonic() + heartbeat * SETTLING
            while time.monotonic() < settled:
                time.sleep(1.0)
            before, cpu, beats, began = _counts(raw), time.process_time(), keeper.beats, time.monotonic()
            while time.monotonic() - began < seconds:
                time.sleep(1.0)
                progress()
            spent, done = time.process_time() - cpu, keeper.beats - beats
            passed = time.monotonic() - began
            if not all(lease.held for lease in held):
                raise RuntimeError("a lease was lost")
            for lease in held:
                lease.released = True
        after = _counts(raw)
        updates, heap_only = (now - was for now, was in zip(after[:2], before[:2], strict=True))
        return LeaseCost(leases, passed, heartbeat, done, spent / passed, updates, heap_only, after[2])


def _counts(raw: psycopg.Connection[Any]) -> tuple[int, int, int]:
    raw.execute("SELECT pg_stat_clear_snapshot()")
    time.sleep(1.5)  # a server process tells its counts once a second
    row = raw.execute(
        "SELECT n_tup_upd, n_tup_hot_upd, n_dead_tup FROM pg_stat_user_tables WHERE relname = 'sessions'"
    ).fetchone()
    if row is None:
        raise RuntimeError("there is no table of sessions")
    return int(row[0]), int(row[1]), int(row[2])
