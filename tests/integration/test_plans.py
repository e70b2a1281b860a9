"""What lists and sweeps read among many sessions: in proportion to what they give back, not to the table.

100,000 sessions by default; LIFECYCLE_PLAN_SESSIONS=1000000 looks at as many as you like.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from lifecycle import Policies, SessionManager, Settings, migrate, states
from lifecycle.operations import requests as r
from lifecycle.operations.oversight import WHYS
from lifecycle.pieces import Document
from tests.plans import Work, work_of
from tests.servers import PostgresServer

SESSIONS = int(os.environ.get("LIFECYCLE_PLAN_SESSIONS", "100000"))
DUE = 1000
PAGE = 20

# Sessions of 30 days, some at every minute, in every state, of many users; all deadlines lie in the future.
_FILL = """
INSERT INTO sessions (tenant, session_id, kind, user_id, agent_id, parent_id, title, title_folded, state, metadata, config,
  version, next_seq, message_count, created_at, updated_at, listed_at, last_active_at, idle_active, idle_suspended,
  expires_at, ended_at, prune_at)
SELECT '', md5(i::text), (ARRAY['chat','chat','chat','cron','copilot'])[1 + i %% 5], 'user' || i %% 20000, 'agent' || i %% 50,
  CASE WHEN i %% 100 = 0 THEN md5((i + 1)::text) END,
  'About ' || md5((i * 7)::text), 'about ' || md5((i * 7)::text), state, '{}', '{}', 1, 5, 3, at, at, date_trunc('minute', at), at,
  86400, 2592000, CASE WHEN state IN ('active', 'suspended') THEN now() + (i %% 86400 + 3600) * interval '1 second' END,
  CASE WHEN state NOT IN ('active', 'suspended') THEN at END,
  CASE WHEN state NOT IN ('active', 'suspended') THEN now() + (i %% 86400 + 3600) * interval '1 second' END
FROM (SELECT i, now() - (i::float8 / %(n)s) * interval '30 days' AS at,
  (ARRAY['active','active','active','active','active','active','suspended','completed','ended','expired'])[1 + i / 5 %% 10] AS state
  FROM generate_series(1, %(n)s) AS i) AS made
"""
_MESSAGES = """
INSERT INTO session_messages (tenant, session_id, seq, message_id, role, content, encoding, created_at)
SELECT '', md5(i::text), s, md5(i || '-' || s), 'user', 'hello', 'text', now()
FROM generate_series(1, %(n)s) AS i, generate_series(2, 4) AS s
"""
_AUDIT = """
INSERT INTO session_transitions (tenant, session_id, seq, trigger_name, to_state, version, txid, created_at)
SELECT '', md5(i::text), 1, 'create', 'active', 1, 1, now() FROM generate_series(1, %(n)s) AS i
"""
_STATES = """
INSERT INTO session_states (tenant, session_id, context)
SELECT '', md5(i::text), '{"a":1}' FROM generate_series(1, %(n)s) AS i
"""
_ENTRIES = """
INSERT INTO session_entries (tenant, session_id, number, digest, content)
SELECT '', md5(i::text), n, md5(i || '-' || n), '"hello"' FROM generate_series(1, %(n)s) AS i, generate_series(1, 2) AS n
"""
_VALUES = """
INSERT INTO session_values (tenant, session_id, name, version, content)
SELECT '', md5(i::text), 'c' || md5(i::text), 1, '"hello"' FROM generate_series(1, %(n)s, 10) AS i
"""
_APPROVALS = """
INSERT INTO session_approvals (tenant, session_id, approval_id, action, state, requested_at, expires_at)
SELECT '', md5(i::text), 'a', 'deploy', 'pending', now(), now() + interval '1 hour' FROM generate_series(1, %(n)s, 10) AS i
"""
_CONNECTIONS = """
INSERT INTO session_connections (tenant, session_id, connection_id, opened_at, beat_at, silent_at)
SELECT '', md5(i::text), 'c', now(), now() + interval '1 hour', now() + interval '1 hour' FROM generate_series(1, %(n)s, 10) AS i
"""
_TOKENS = """
INSERT INTO session_tokens (tenant, session_id, token, digest, version, created_at)
SELECT '', md5(i::text), 't', 'd', 1, now() FROM generate_series(1, %(n)s, 10) AS i
"""
_CHECKPOINTS = """
INSERT INTO session_checkpoints (tenant, session_id, seq, label, version, created_at)
SELECT '', md5(i::text), 4, 'l', 1, now() FROM generate_series(1, %(n)s, 10) AS i
"""
_ALL = (_FILL, _MESSAGES, _AUDIT, _STATES, _ENTRIES, _VALUES, _APPROVALS, _CONNECTIONS, _TOKENS, _CHECKPOINTS)


@pytest.fixture(scope="module")
def crowded_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database with many sessions, vacuumed and analyzed as autovacuum leaves it."""
    url = postgres_server.create_database("crowded")
    migrate.upgrade(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        for statement in _ALL:
            connection.execute(statement, {"n": SESSIONS}, prepare=False)
        connection.execute("VACUUM ANALYZE")
    yield url
    postgres_server.drop_database("crowded")


@pytest.fixture
def connection(crowded_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that is rolled back in the end."""
    with psycopg.connect(crowded_url) as opened:
        yield opened
        opened.rollback()


def listing(**options: Any) -> r.ListSessions:
    """A page as `list_sessions` asks for it."""
    values: dict[str, Any] = {
        "tenant": "", "filters": {}, "sort": "updated_at", "descending": True, "limit": PAGE, "offset": 0,
        "cursor": None, "count": False,
    }  # fmt: skip
    return r.ListSessions(**(values | options))


def assert_small(work: Work, bound: int) -> None:
    """At most so many rows were read, and no table was read through."""
    assert work.sequential == set()
    assert work.rows_read <= bound, work


DAY = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(days=7)


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"user_id": "user77"},
        {"agent_id": "agent7"},
        {"kind": "cron"},
        {"state": "active"},
        {"state": "expired"},
        {"parent_id": "nobody"},
        {"since": DAY},
        {"until": DAY},
        {"kind": "cron", "state": "suspended"},
        {"state": "active", "since": DAY, "until": DAY + timedelta(hours=2)},
        {"deleted": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("descending", [True, False])
def test_a_page_reads_little_more_than_it_returns(
    connection: psycopg.Connection[Any], filters: dict[str, Any], *, descending: bool
) -> None:
    """Whatever the filter: some rows more, for those of one minute are sorted."""
    work, (rows, total) = work_of(connection, listing(filters=filters, descending=descending))
    assert total is None
    few = {"parent_id": 0, "user_id": min(PAGE + 1, SESSIONS // 20000)}
    assert len(rows) == few.get(next(iter(filters), ""), PAGE + 1)
    per_minute = SESSIONS / (30 * 24 * 60)
    assert_small(work, int(20 * PAGE + 4 * per_minute))


def test_a_page_behind_a_cursor_reads_as_little(connection: psycopg.Connection[Any]) -> None:
    """A page deep in the list costs no more than the first one."""
    cursor = (DAY, DAY, "", "")
    work, (rows, _) = work_of(connection, listing(cursor=cursor))
    assert len(rows) == PAGE + 1
    assert_small(work, int(20 * PAGE + 4 * SESSIONS / (30 * 24 * 60)))


def test_pages_by_id_read_as_little(connection: psycopg.Connection[Any]) -> None:
    """The order of ids has the primary key."""
    work, (rows, _) = work_of(connection, listing(sort="session_id", descending=False))
    assert len(rows) == PAGE + 1
    assert_small(work, 2 * PAGE)


@pytest.mark.parametrize("needle", ["no such title anywhere", "0123456", "about"])
def test_a_title_search_reads_what_it_finds(connection: psycopg.Connection[Any], needle: str) -> None:
    """A rare text is found through the trigram index, one that every title has by going through the list."""
    work, (rows, _) = work_of(connection, listing(filters={"search": needle, "search_messages": False}))
    assert all(needle in row["title_folded"] for row in rows)
    assert_small(work, int(60 * PAGE + 4 * SESSIONS / (30 * 24 * 60)))
    if needle == "no such title anywhere":
        assert "ix_sessions_title_trgm" in work.indexes


@pytest.mark.parametrize(
    "due",
    [
        r.Due(None, "expire_idle"),
        r.Due(None, "expire_idle", kind="cron"),
        r.Due("", "expire_idle"),
        r.Due(None, "prune_sessions", states=states.TERMINAL),
        r.Due(None, "prune_sessions", states=states.TERMINAL, seconds=31 * 86400),
        r.Due(None, "delete_ghosts"),
        r.Due(None, "cleanup_stale_sessions", states=states.LIVE, seconds=31 * 86400),
        r.Due(None, "expire_approvals"),
        r.Due(None, "reap_connections", seconds=300),
    ],
    ids=lambda due: f"{due.sweep}-{due.kind}-{due.tenant}-{due.seconds}",
)
def test_a_sweep_with_nothing_to_do_reads_nothing(connection: psycopg.Connection[Any], due: r.Due) -> None:
    """Its index says at once that nothing is due; the dry run, too."""
    work, (oldest, _) = work_of(connection, r.OldestDue(due))
    assert oldest is None
    batch, done = work_of(connection, r.SweepBatch(due, 500, None, None, ("{}", 86400)))
    assert done == []
    count, (n, _, _) = work_of(connection, r.CountDue(due))
    assert n == 0
    for part in (work, batch, count):
        assert_small(part, 0)


HELD = 2000


@pytest.fixture
def holding(connection: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """2,000 sessions that one worker holds, which it got after the statistics were taken."""
    connection.execute(
        "UPDATE sessions SET lease_holder = 'h', lease_epoch = 1, lease_expires_at = now() + interval '1 minute',"
        f" runs = true WHERE ctid = ANY(ARRAY(SELECT ctid FROM sessions WHERE state = 'active' LIMIT {HELD}))"
    )
    connection.execute("INSERT INTO workers VALUES ('h', 'host', 1, '0', 'running', now(), now())")
    return connection


def test_a_beat_reads_its_leases_only(holding: psycopg.Connection[Any]) -> None:
    """Each by its key: the index on the holder would be read through for every one of them."""
    rows = holding.execute("SELECT session_id FROM sessions WHERE lease_holder = 'h' ORDER BY session_id").fetchall()
    leases = tuple(("", session_id, 1, 30.0) for (session_id,) in rows)
    work, renewed = work_of(holding, r.RenewLeases("h", leases[:500]))
    assert len(renewed) == 500
    assert "ix_sessions_lease_holder" not in work.indexes
    assert_small(work, 500 * 3)


def test_a_fenced_save_reads_one_session(holding: psycopg.Connection[Any]) -> None:
    """By its key, whoever holds how many others."""
    row = holding.execute("SELECT session_id FROM sessions WHERE lease_holder = 'h' LIMIT 1").fetchone()
    assert row is not None
    request = r.SaveState("", row[0], {"context": Document("{}")}, None, None, {"step": 1}, None, None, None, ("h", 1))
    work, version = work_of(holding, request)
    assert version is not None
    assert_small(work, 5)


def test_a_claim_where_nothing_waits_reads_next_to_nothing(holding: psycopg.Connection[Any]) -> None:
    """The holders are read one by one, not lease by lease; a living one's leases are not looked at."""
    work, claimed = work_of(holding, r.ClaimSessions(None, ("chat", "cron"), "other", 30.0, 10))
    assert claimed == []
    assert work.rows_read <= 10, work
    assert work.sequential <= {"workers"}


def test_a_claim_reads_a_bounded_window(holding: psycopg.Connection[Any]) -> None:
    """However many wait, so many that wait longest are looked at, and what a dead worker left."""
    holding.execute(
        "UPDATE sessions SET available_at = now(), runs = true WHERE state = 'active' AND lease_holder IS NULL"
    )
    holding.execute("UPDATE workers SET beat_at = now() - interval '1 hour'")
    holding.execute("UPDATE sessions SET lease_expires_at = now() - interval '1 minute' WHERE lease_holder = 'h'")
    holding.execute("ANALYZE sessions")
    work, claimed = work_of(holding, r.ClaimSessions(None, ("chat", "cron", "copilot"), "other", 30.0, 10))
    assert len(claimed) == 10
    assert work.rows_read <= HELD * 2 + 500 * 8, work


@pytest.mark.parametrize(("sweep", "column"), [("prune_sessions", "prune_at"), ("expire_idle", "expires_at")])
def test_a_batch_reads_what_it_acts_on(connection: psycopg.Connection[Any], sweep: str, column: str) -> None:
    """A batch of 500 among the 1,000 that are due reads those sessions, and what is theirs."""
    of = "IS NOT NULL" if sweep == "prune_sessions" else "IS NULL"
    connection.execute(
        f"UPDATE sessions SET {column} = now() - interval '1 hour' WHERE ctid = ANY(ARRAY("
        f"SELECT ctid FROM sessions WHERE ended_at {of} ORDER BY session_id LIMIT {DUE}))"
    )
    policies = Policies()
    due = r.Due(None, sweep, states=states.TERMINAL if sweep == "prune_sessions" else ())
    request = r.SweepBatch(due, 500, "why", None, policies.retention_map("expired"))
    work, done = work_of(connection, request)
    assert len(done) == 500
    # Session, state, three messages, an audit row: each found through its index and then deleted.
    assert_small(work, 500 * 20)


@pytest.mark.parametrize("tenant", [None, ""])
def test_a_count_by_state_reads_an_index_only(
    crowded_url: str, connection: psycopg.Connection[Any], tenant: str | None
) -> None:
    """Every session's entry in it, but no session; what is due is found through its own index."""
    with psycopg.connect(crowded_url, autocommit=True) as other:
        # As autovacuum does in time: what other tests rolled back has pages looked at again.
        other.execute("VACUUM sessions")
    work, numbers = work_of(connection, r.CountSessions(tenant, 100_000))
    assert sum(numbers[""][state] for state in states.STATES) == SESSIONS
    assert work.only == {"ix_sessions_state"}
    # Nothing else is read but what is counted there: the approvals that wait, one for ten sessions.
    assert work.sequential <= {"session_approvals"}
    assert work.rows_read <= SESSIONS * 1.1 + 100, work


def test_a_count_of_what_is_due_is_bounded(connection: psycopg.Connection[Any]) -> None:
    """However large the backlog is, so many of the oldest are read."""
    connection.execute("UPDATE sessions SET expires_at = now() - interval '1 hour' WHERE ended_at IS NULL")
    connection.execute("ANALYZE sessions")
    work, numbers = work_of(connection, r.CountSessions(None, 500))
    assert numbers[""]["due_to_expire"] == 500
    assert 3600 <= numbers[""]["backlog_age"] < 3700
    assert "ix_sessions_due" in work.indexes


def test_the_log_is_counted_from_where_it_was(connection: psycopg.Connection[Any]) -> None:
    """A page of it costs what the page has, wherever in the log it is; the numbers are read by key."""
    for page in (1, 2):
        work, (done, more) = work_of(connection, r.CountTransitions(500))
        assert (done, more) == (500, True)
        assert "session_transitions" not in work.sequential
        # Through the page's index entries twice, for its end and for its numbers, and through its lines once.
        assert work.rows_read <= 500 * 3 + 50, (page, work)
    work, _ = work_of(connection, r.ReadSamples(None, ("active", "create"), None))
    assert work.rows_read <= 10, work


@pytest.mark.parametrize(
    "request_",
    [
        listing(tenant=None),
        listing(tenant=None, filters={"state": "suspended"}),
        listing(tenant=None, filters={"user_id": "user77"}),
        r.RecentTransitions(None, None, PAGE),
        r.RecentTransitions("", "of nobody", PAGE),
        *(r.ListStuck(tenant, why, 60, PAGE) for why in WHYS for tenant in ("", None)),
    ],
    ids=lambda request: type(request).__name__,
)
def test_what_an_operator_looks_at(connection: psycopg.Connection[Any], request_: r.Request) -> None:
    """Lists over all tenants, what happened last and what is stuck read about as much as they show."""
    work, _ = work_of(connection, request_)
    assert_small(work, PAGE * 4)


# The last one: it changes the database for good. What it saves is all of one minute, which a list reads as a whole.
def test_beats_and_saves_are_heap_only(crowded_url: str) -> None:
    """No index holds a column that they change each time: 90 of 100 updates touch no index."""
    with SessionManager.open(Settings(database={"url": crowded_url})) as manager:
        ids = [session.session_id for session in manager.list_sessions(state="active", limit=100).items]
        with psycopg.connect(crowded_url, autocommit=True) as connection:
            # Let the deadlines and minutes settle first: they move once a minute, not once a call.
            for session_id in ids:
                manager.save_state(session_id, step=0)
            before = _updates(connection)
            for step in range(30):
                for session_id in ids:
                    manager.touch_session(session_id)
                    manager.save_state(session_id, step=step)
    # A server process says what it did when it ends.
    with psycopg.connect(crowded_url, autocommit=True) as connection:
        while (after := _updates(connection))[0] - before[0] < 6000:
            connection.execute("SELECT pg_stat_clear_snapshot()")
    all_updates, heap_only = after[0] - before[0], after[1] - before[1]
    assert heap_only / all_updates >= 0.9


def _updates(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    connection.execute("SELECT pg_stat_force_next_flush()")
    row = connection.execute(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'sessions'"
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])
