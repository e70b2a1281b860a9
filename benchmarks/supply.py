"""What the hot operations are timed on: the same for the floor's side and for ours, on any database."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from benchmarks.payload import CONTENT, PAGE, SESSIONS, context
from lifecycle import SessionManager
from lifecycle.lease import Lease
from lifecycle.models import tables as t
from tests.populations import connected

TTL: Final = 7200.0
"""Seconds that leases live: longer than any run, so that no beat falls into what is measured."""
HOLDER: Final = "bench"
LEASED: Final = 100
"""So many sessions of each side are leased."""
_TO_READ: Final = 10
# Fewer turns than this are not worth many sessions.
_FEW: Final = 20


@dataclass(frozen=True, slots=True)
class Supply:
    """One side's sessions: with a saved state; with a page of messages, to be read; leased; and the kind to claim."""

    ids: list[str]
    read: list[str]
    leases: list[Lease]
    kind: str

    def of(self, turn: int) -> str:
        """The session whose turn it is."""
        return self.ids[turn % len(self.ids)]

    def to_read(self, turn: int) -> str:
        """The session whose messages are read."""
        return self.read[turn % len(self.read)]

    def lease(self, turn: int) -> Lease:
        """The lease of the session that is written under one."""
        return self.leases[turn % len(self.leases)]


@contextlib.contextmanager
def supplies(url: str, name: str, turns: int) -> Iterator[tuple[Supply, Supply]]:
    """The floor's and ours, with a session to claim for each of so many turns; the leases are given back in the end."""
    with SessionManager.open(url) as manager, contextlib.ExitStack() as held:
        _register_holder(url)
        sessions = SESSIONS if turns > _FEW else turns
        sides = [_supply(manager, held, f"{name}-{side}", sessions) for side in ("floor", "ours")]
        for side in sides:
            _make_claimable(url, side.kind, turns)
        _analyze(url)
        yield sides[0], sides[1]


def _analyze(url: str) -> None:
    """As the server would by itself in a while, MariaDB at once."""
    with connected(url) as connection:
        if connection.dialect.name != "mysql":
            connection.exec_driver_sql("ANALYZE")


def _supply(manager: SessionManager, held: contextlib.ExitStack, prefix: str, sessions: int) -> Supply:
    ids = [f"{prefix}-{i:06}-6f1c-7bb0-a1d2" for i in range(sessions)]
    for session in ids:
        manager.create_session(session_id=session, user_id="ann", title="A title", metadata={"tier": "gold"})
        manager.save_state(session, step=0, context=context(0))
    read = [f"{prefix}-read-{i}" for i in range(min(_TO_READ, sessions))]
    for session in read:
        manager.create_session(session_id=session)
        manager.add_messages(session, [{"role": "user", "content": CONTENT}] * PAGE)
    leases = []
    for i in range(min(LEASED, sessions)):
        session = f"{prefix}-leased-{i:06}-6f1c-7bb0"
        manager.create_session(session_id=session)
        leases.append(held.enter_context(manager.lease(session, holder=HOLDER, ttl=TTL)))
    return Supply(ids, read, leases, f"{prefix}-claims")


def _register_holder(url: str) -> None:
    """As a runner is registered: what an unknown holder has leased would be looked at by every claim."""
    at = datetime.now(UTC)
    row = {"worker_id": HOLDER, "host": "here", "pid": 1, "release_name": "0", "state": "running", "started_at": at}
    with connected(url) as connection:
        connection.execute(sa.delete(t.workers).where(t.workers.c.worker_id == HOLDER))
        connection.execute(sa.insert(t.workers), row | {"beat_at": at + timedelta(days=1)})


def _make_claimable(url: str, kind: str, number: int) -> None:
    at = datetime.now(UTC) - timedelta(hours=1)
    stamps = dict.fromkeys(("created_at", "updated_at", "last_active_at", "available_at"), at)
    row: dict[str, Any] = {
        "tenant": "", "kind": kind, "state": "active", "metadata": "{}", "config": "{}", "version": 1, "next_seq": 2,
        "listed_at": at.replace(second=0, microsecond=0), "idle_active": 86_400, "idle_suspended": 2_592_000,
        "expires_at": at + timedelta(days=1), "runs": True, **stamps,
    }  # fmt: skip
    with connected(url) as connection:
        connection.execute(sa.insert(t.sessions), [{**row, "session_id": f"{kind}-{i:06}"} for i in range(number)])
