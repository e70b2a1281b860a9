"""Expiring and pruning on every database: so many sessions a second."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from benchmarks.bench import Bench, Section
from benchmarks.grid import Grid
from benchmarks.payload import CONTENT
from lifecycle import SessionManager
from lifecycle.models import tables as t
from tests.populations import connected
from tests.servers import ServerUnavailable

_SESSIONS: Final = 5_000
_MESSAGES: Final = 5
_CHUNK: Final = 500

_HEAD: Final = """## Expiring and pruning

One sweep each of {sessions:,} sessions that are due, among twice as many that are not, in batches as by default: `expire_idle`
writes an audit row for each, `prune_sessions` removes finished ones with {messages} messages and an audit row each.
"""


@dataclass(frozen=True, slots=True)
class Swept:
    """Sessions a second."""

    database: str
    sweep: str
    per_second: float


def section(bench: Bench) -> Section:
    """Both sweeps on every database there is."""
    sessions = bench.pick(_SESSIONS, 20)
    made = {"PostgreSQL": bench.postgresql, "SQLite": bench.sqlite, "MariaDB": bench.on_mariadb}
    progress = bench.stage("expiring and pruning", len(made))
    found: list[Swept] = []
    left_out = []
    for database, open_ in made.items():
        try:
            found += _measure(database, open_("upkeep"), sessions)
        except ServerUnavailable as reason:
            left_out.append(f"{database} left out: {reason}.\n")
        progress()
    grid = Grid(
        ("database", "sweep", "sessions/s"),
        [(one.database, one.sweep, f"{one.per_second:,.0f}") for one in found],
        texts=2,
    )
    head = _HEAD.format(sessions=sessions, messages=_MESSAGES)
    text = "\n".join((head, *left_out, grid.markdown()))
    return Section([asdict(one) for one in found], [grid.rich()], text)


def _measure(database: str, opened: AbstractContextManager[str], sessions: int) -> Iterator[Swept]:
    with opened as url:
        _fill(url, sessions)
        with SessionManager.open(url) as manager:
            for name, sweep in (("expire_idle", manager.expire_idle), ("prune_sessions", manager.prune_sessions)):
                began = time.perf_counter()
                report = sweep()
                taken = time.perf_counter() - began
                assert report.count == sessions, report
                yield Swept(database, name, report.count / taken)


def _fill(url: str, sessions: int) -> None:
    """Of every three sessions one is to be expired, one to be pruned, and one to be left alone."""
    at = datetime.now(UTC) - timedelta(days=2)
    with connected(url) as connection:
        for start in range(0, 3 * sessions, _CHUNK):
            rows = [_row(number, at) for number in range(start, min(start + _CHUNK, 3 * sessions))]
            connection.execute(sa.insert(t.sessions), rows)
            connection.execute(sa.insert(t.messages), [message for row in rows for message in _messages(row)])
            connection.execute(sa.insert(t.transitions), [_line(row) for row in rows])
    with connected(url) as connection:
        # As the server would by itself in a while, MariaDB at once.
        if connection.dialect.name != "mysql":
            connection.exec_driver_sql("ANALYZE")


def _row(number: int, at: datetime) -> dict[str, Any]:
    finished = number % 3 == 1
    expires_at = at + timedelta(days=1 if number % 3 == 0 else 30)
    return {
        "tenant": "", "session_id": f"{number * 7919 % 1_000_003:07x}-{number:07}", "kind": "chat", "metadata": "{}",
        "config": "{}", "state": "completed" if finished else "active", "version": 1, "next_seq": 2 + _MESSAGES,
        "message_count": _MESSAGES, "created_at": at, "updated_at": at, "listed_at": at.replace(second=0, microsecond=0),
        "last_active_at": at, "idle_active": 86_400, "idle_suspended": 2_592_000,
        "expires_at": None if finished else expires_at, "ended_at": at if finished else None,
        "prune_at": at + timedelta(days=1) if finished else None,
    }  # fmt: skip


def _messages(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for seq in range(2, 2 + _MESSAGES):
        yield {
            "tenant": "", "session_id": row["session_id"], "seq": seq, "message_id": f"m{seq}", "role": "user",
            "content": CONTENT, "encoding": "text", "created_at": row["created_at"],
        }  # fmt: skip


def _line(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "tenant": "", "session_id": row["session_id"], "seq": 1, "trigger_name": "create", "to_state": "active",
        "version": 1, "created_at": row["created_at"],
    }  # fmt: skip
