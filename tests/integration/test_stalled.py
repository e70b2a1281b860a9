"""A client that stands still in a transaction holds nobody up for long, and claims not at all."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from lifecycle import SessionManager, urls
from lifecycle.drivers import mariadb, postgresql_pool
from lifecycle.models import tables as t

SERVERS = ("postgres", "mariadb")


@pytest.fixture(params=SERVERS)
def url(request: pytest.FixtureRequest) -> str:
    """A server's database with the schema in place."""
    return str(request.getfixturevalue(f"migrated_{request.param}_url"))


@contextlib.contextmanager
def cursor_of(manager: SessionManager) -> Iterator[Any]:
    """A cursor on one of a manager's own connections, given back as it is."""
    driver: Any = manager._driver
    if isinstance(driver, mariadb.MariadbDriver):
        fairy = driver.engine.raw_connection()
        yield fairy.cursor()
        fairy.invalidate()
    else:
        connection = driver._pool.getconn()
        yield connection.cursor()
        connection.close()
        driver._pool.putconn(connection)


def test_a_claim_passes_over_what_is_locked(url: str) -> None:
    """And takes all else."""
    engine = sa.create_engine(urls.engine_url(url))
    with SessionManager.open(url) as manager, engine.connect() as other:
        for number in range(5):
            manager.create_session(session_id=f"s{number}", kind="k", available_at=datetime(2020, 1, 1, tzinfo=UTC))
        chosen = (t.sessions.c.tenant == "", t.sessions.c.session_id == "s2")
        other.execute(sa.select(t.sessions).where(*chosen).with_for_update()).all()
        claimed = manager.claim_sessions(["k"], holder="me", ttl=30, limit=10)
        assert sorted(session.session_id for session in claimed) == ["s0", "s1", "s3", "s4"]
        other.rollback()
        assert [one.session_id for one in manager.claim_sessions(["k"], holder="me", ttl=30, limit=10)] == ["s2"]
    engine.dispose()


def test_a_transaction_that_stands_still_is_broken_off(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the server, so that its locks go while the client is away."""
    monkeypatch.setattr(mariadb, "IDLE", 1)
    monkeypatch.setattr(postgresql_pool, "IDLE", 1)
    with SessionManager.open(url) as stopped, SessionManager.open(url, "other") as manager:
        stopped.create_session(session_id="s")
        with cursor_of(stopped) as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT state FROM sessions WHERE tenant = '' AND session_id = 's' FOR UPDATE")
            assert manager.for_tenant("").save_state("s", step=1) == 2
