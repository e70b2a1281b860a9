"""What it costs to keep many leases alive: CPU of the process, and what PostgreSQL has to write."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import psycopg

from benchmarks.bench import Bench, Section
from benchmarks.grid import Grid
from lifecycle import SessionManager
from lifecycle.lease_keeper import keeper_for

WAITING: Final = """
INSERT INTO sessions (tenant, session_id, kind, state, metadata, config, version, next_seq, created_at, updated_at,
  listed_at, last_active_at, idle_active, idle_suspended, expires_at, available_at, runs)
SELECT '', md5(i::text), %(kind)s, 'active', '{}', '{}', 1, 2, now(), now(), date_trunc('minute', now()), now(), 86400,
  2592000, now() + interval '1 day', now(), true
FROM generate_series(1, %(n)s) AS i
"""
"""So many sessions of a kind that wait to be claimed."""

_LEASES: Final = 10_000
# The beats come more often than usual, so that there are enough of them in little time.
_HEARTBEAT: Final = 3.0
_TTL: Final = 30.0
_USUAL_HEARTBEAT: Final = 10.0
_SETTLING, _WATCHED = 5, 6  # beats


@dataclass(frozen=True, slots=True)
class LeaseCost:
    """So many leases kept for so many seconds: statements, CPU seconds, row updates, heap-only ones, dead rows."""

    leases: int
    seconds: float
    heartbeat: float
    beats: int
    cpu_seconds: float
    updates: int
    heap_only: int
    dead: int

    @property
    def heap_only_share(self) -> float:
        """Which part of the updates touched no index."""
        return self.heap_only / self.updates if self.updates else 0.0

    @property
    def cpu_share(self) -> float:
        """Which part of a core it would take with the usual time between beats."""
        return self.cpu_seconds / self.seconds * self.heartbeat / _USUAL_HEARTBEAT


_HEAD: Final = """## Leases

{leases:,} leases that one process keeps alive with a beat every {heartbeat:g} s each, watched for {seconds:.0f} s once settled.
The share of a core is what the process would spend on them with a beat every {usual:g} s, as is usual.
"""


def section(bench: Bench) -> Section:
    """Claim many sessions, then watch their beats."""
    with bench.postgresql("leases") as url:
        cost = _measure(bench, url, bench.pick(_LEASES, 50), bench.pick(_HEARTBEAT, 0.2))
    grid = Grid(
        ("leases", "statements", "row updates", "heap-only", "dead rows in the end", "of one core"),
        [
            (
                f"{cost.leases:,}", f"{cost.beats:,}", f"{cost.updates:,}", f"{cost.heap_only_share:.1%}",
                f"{cost.dead:,}", f"{cost.cpu_share:.1%}",
            )
        ],
        texts=0,
    )  # fmt: skip
    head = _HEAD.format(
        leases=cost.leases, heartbeat=cost.heartbeat, seconds=cost.seconds, usual=_USUAL_HEARTBEAT
    )  # fmt: skip
    figures = asdict(cost) | {"heap_only_share": cost.heap_only_share, "cpu_share": cost.cpu_share}
    return Section(figures, [grid.rich()], f"{head}\n{grid.markdown()}")


def _measure(bench: Bench, url: str, leases: int, heartbeat: float) -> LeaseCost:
    progress = bench.stage("leases", _SETTLING + _WATCHED)
    with psycopg.connect(url, autocommit=True) as raw:
        raw.execute(WAITING, {"n": leases, "kind": "agent"})
        raw.execute("VACUUM ANALYZE sessions")
        with SessionManager.open(url) as manager:
            held: list[Any] = []
            while len(held) < leases:
                held += manager.claim(["agent"], ttl=_TTL, heartbeat=heartbeat, limit=1000)
            keeper = keeper_for(manager)
            # The first beats spread the rows until each page has room for new versions: what lasts is measured.
            _wait(_SETTLING, heartbeat, progress)
            before, cpu, beats, began = _counts(raw), time.process_time(), keeper.beats, time.monotonic()
            _wait(_WATCHED, heartbeat, progress)
            spent, done = time.process_time() - cpu, keeper.beats - beats
            seconds = time.monotonic() - began
            if not all(lease.held for lease in held):
                raise RuntimeError("a lease was lost")
            for lease in held:
                lease.released = True
        after = _counts(raw)
    updates, heap_only = (now - was for now, was in zip(after[:2], before[:2], strict=True))
    return LeaseCost(leases, seconds, heartbeat, done, spent, updates, heap_only, after[2])


def _wait(beats: int, heartbeat: float, progress: Callable[[], None]) -> None:
    for _ in range(beats):
        time.sleep(heartbeat)
        progress()


def _counts(raw: psycopg.Connection[Any]) -> tuple[int, int, int]:
    raw.execute("SELECT pg_stat_clear_snapshot()")
    time.sleep(1.5)  # a server process tells its counts once a second
    row = raw.execute(
        "SELECT n_tup_upd, n_tup_hot_upd, n_dead_tup FROM pg_stat_user_tables WHERE relname = 'sessions'"
    ).fetchone()
    if row is None:
        raise RuntimeError("there is no table of sessions")
    return int(row[0]), int(row[1]), int(row[2])
