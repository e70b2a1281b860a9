"""Short runs of the chaos harness, and one process that dies with a thousand sessions in its hands."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from lifecycle import SessionManager
from tests.chaos.cast import Cast
from tests.chaos.harness import Plan, Run, summary
from tests.chaos.ledger import Line, read_ledgers
from tests.chaos.player import KIND
from tests.chaos.stage import KINDS, Kind
from tests.conftest import _found as found
from tests.servers import find_mariadb, find_postgres

CROWD = 1000


@pytest.mark.parametrize("database", KINDS)
def test_what_was_promised_holds_in_chaos(database: Kind, tmp_path: Path) -> None:
    """Killed, stopped and cut-off runners finish every session, and do nothing twice that was acknowledged."""
    if database != "sqlite":
        found({"postgresql": lambda: find_postgres(18), "mariadb": find_mariadb}[database])
    report = Run(Plan(database=database, seed=7), tmp_path).go()
    print(summary(report))  # noqa: T201 - shown where it fails
    assert report.broken == []
    assert report.counts["kills"]
    assert report.counts["acknowledged saves"] >= 60 * 20


@pytest.mark.parametrize("database", ["sqlite", "postgres", "mariadb"])
def test_all_sessions_of_a_dead_process_are_taken_over(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Two runners take over all thousand sessions that a third one held when it was killed."""
    url = str(request.getfixturevalue(f"migrated_{database}_url"))
    ledgers = tmp_path / "ledgers"
    ledgers.mkdir()
    with SessionManager.open(url) as manager:
        for number in range(CROWD):
            manager.create_session(session_id=f"s{number:03}", kind=KIND, available_at=datetime.now(UTC))
    options = ["--ttl", "3", "--concurrency", str(CROWD), "--block"]
    with Cast([url, url, url], ledgers, tmp_path, options, first=1) as cast:
        cast.until(lambda: len(claimed(ledgers, 1)) == CROWD)
        cast.start(1)
        cast.start(2)
        cast.until(cast.up)
        cast.kill(0)
        cast.until(lambda: len(claimed(ledgers, 2)) == CROWD)
        died = cast.kills[0].at
        taken = claimed(ledgers, 2)
        assert {line.pid for line in taken} <= {process.pid for process in cast.processes if process is not None}
        seconds = [line.at - died for line in taken]
        print(f"{CROWD} taken over {min(seconds):.2f} to {max(seconds):.2f} s after the kill")  # noqa: T201


def claimed(ledgers: Path, epoch: int) -> list[Line]:
    """The claims under just this epoch."""
    lines = [line for ledger in read_ledgers(ledgers).values() for line in ledger]
    return [line for line in lines if (line.what, line.epoch) == ("claimed", epoch)]
