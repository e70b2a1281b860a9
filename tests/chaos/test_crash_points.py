"""A runner dies at each named point around its commits, one after another, and every session is finished all the same."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from lifecycle import SessionManager
from tests.chaos import invariants
from tests.chaos.cast import Cast
from tests.chaos.crash_points import POINTS, read_crashes
from tests.chaos.ledger import read_ledgers
from tests.chaos.player import KIND

SESSIONS = 3 * len(POINTS)
STEPS = 3


@pytest.mark.parametrize("database", ["sqlite", "postgres", "mariadb"])
def test_a_crash_at_any_point_loses_nothing(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Each process takes up what the one before it left, and dies elsewhere; the last one finishes."""
    url = str(request.getfixturevalue(f"migrated_{database}_url"))
    ledgers, logs = tmp_path / "ledgers", tmp_path / "logs"
    ledgers.mkdir()
    logs.mkdir()
    ids = [f"s{number:03}" for number in range(SESSIONS)]
    with SessionManager.open(url) as manager:
        for session_id in ids:
            manager.create_session(session_id=session_id, kind=KIND, available_at=datetime.now(UTC))
        for point in POINTS:
            options = ["--steps", str(STEPS), "--seconds", "0.1", "--ttl", "0.6", "--concurrency", "2"]
            # Some fail at first, so that there is something to be handed back.
            options += ["--stumbles", "0.2", "--crash", point]
            with Cast([url], ledgers, logs, options) as cast:
                cast.until(lambda cast=cast: not cast.alive(0))  # type: ignore[misc]
                assert (cast.deserted, dict(cast.crashes)) == ([], {point: 1})
        with Cast([url], ledgers, logs, ["--steps", str(STEPS), "--seconds", "0.02", "--ttl", "0.6"]) as cast:
            cast.until(lambda: manager.list_sessions(kind=KIND, state="active", limit=1, count=True).total == 0)
            assert cast.dismiss() == []
        assert [crash.point for crash in read_crashes(ledgers)] == list(POINTS)
        written = read_ledgers(ledgers)
        for session_id in ids:
            assert list(invariants.broken_by(written[session_id])) == []
            assert list(invariants.unfinished(manager, session_id, STEPS, written[session_id])) == []
