"""What Citus makes of a statement is told right: what it refuses is seen, and what it takes has its class."""

import pytest

from tests.statements import Refused, classify

_ONE = "s.tenant = $1 AND s.session_id = $2"
_NAMES = ["p_tenant", "p_session_id", "p_other", "p_more"]

TAKEN = {
    f"SELECT s.title FROM sessions AS s WHERE {_ONE} FOR UPDATE": "router",
    f"UPDATE sessions AS s SET version = s.version + 1 WHERE {_ONE} RETURNING s.version": "router",
    f"SELECT m.seq FROM session_messages AS m, sessions AS s WHERE {_ONE} AND m.tenant = s.tenant"
    " AND m.session_id = s.session_id": "router",
    f"SELECT s.title, (SELECT count(*) FROM session_messages AS m WHERE m.tenant = s.tenant AND m.session_id = s.session_id)"
    f" FROM sessions AS s WHERE {_ONE}": "router",
    f"WITH moved AS (UPDATE sessions AS s SET version = 2 WHERE {_ONE} RETURNING s.tenant, s.session_id) SELECT"
    " c.context FROM session_states AS c JOIN moved ON c.tenant = moved.tenant AND c.session_id = moved.session_id": "router",
    "INSERT INTO session_states (tenant, session_id, version, saved_at) VALUES ($1, $2, 1, statement_timestamp())": "router",
    "INSERT INTO session_states (tenant, session_id) VALUES ($1, $2) ON CONFLICT (tenant, session_id) DO UPDATE SET"
    " version = excluded.version": "router",
    "SELECT tenant, session_id FROM sessions WHERE state = 'active' ORDER BY expires_at LIMIT $3": "read",
    "SELECT s.tenant FROM sessions AS s WHERE NOT EXISTS (SELECT 1 FROM session_states AS c WHERE c.tenant = s.tenant AND"
    " c.session_id = s.session_id)": "read",
    "SELECT tenant, count(*) FROM (SELECT tenant FROM sessions ORDER BY expires_at LIMIT 10) AS few GROUP BY tenant": "read",
    "SELECT title FROM sessions WHERE title LIKE $3 OR (tenant, session_id) IN (SELECT m.tenant, m.session_id FROM"
    " session_messages AS m WHERE m.content LIKE $3)": "read",
    "UPDATE sessions SET version = version + 1 WHERE tenant = $1 AND session_id = ANY ($3::text[])": "write",
    "DELETE FROM sessions AS s USING unnest($3::text[], $4::text[]) AS given(tenant, session_id)"
    " WHERE s.tenant = given.tenant AND s.session_id = given.session_id RETURNING s.version": "write",
    "INSERT INTO session_transitions (tenant, session_id, txid) SELECT g.tenant, g.session_id, pg_current_xact_id()::text::bigint"
    " FROM unnest($3::text[], $4::text[]) AS g(tenant, session_id)": "write",
    "INSERT INTO session_states (tenant, session_id, context) SELECT $1, $3, s.context FROM session_states AS s"
    f" WHERE {_ONE}": "copy",
    "SELECT value FROM service_secrets WHERE name = $1": "coordinator",
    "SELECT holder, statement_timestamp() FROM worker_jobs WHERE job = $1 FOR UPDATE": "coordinator",
    "SELECT pg_current_snapshot()::text": "coordinator",
    "ANALYZE sessions": "upkeep",
}

REFUSED = {
    "SELECT session_id FROM sessions WHERE state = 'active' FOR UPDATE": "locks rows",
    "SELECT session_id FROM sessions WHERE tenant = $1 AND session_id IN ($2, $3) ORDER BY session_id FOR UPDATE SKIP LOCKED": (
        "locks rows"
    ),
    # The same session twice is one; two are two, though each is named.
    "SELECT s.title, o.title FROM sessions AS s, sessions AS o WHERE s.tenant = $1 AND s.session_id = $2 AND o.tenant = $1"
    " AND o.session_id = $3 FOR UPDATE": "locks rows",
    # A part of a WITH that names nobody.
    f"WITH moved AS (UPDATE sessions AS s SET version = 2 WHERE {_ONE} RETURNING s.tenant) UPDATE session_states SET version = 3"
    " FROM moved WHERE session_states.tenant = moved.tenant": "asks other tables",
    "UPDATE sessions SET version = 2 WHERE EXISTS (SELECT 1 FROM session_states AS c WHERE c.session_id = sessions.session_id)": (
        "asks other tables"
    ),
    "DELETE FROM sessions USING session_states AS c WHERE c.session_id = sessions.session_id": "asks other tables",
    "WITH due AS (SELECT tenant, session_id FROM sessions ORDER BY expires_at LIMIT 5) DELETE FROM session_states AS c USING due"
    " WHERE c.session_id = due.session_id": "asks other tables",
    "SELECT h.holder FROM (SELECT DISTINCT lease_holder AS holder FROM sessions) AS h JOIN workers AS w ON w.worker_id = h.holder": (
        "workers, which no node has"
    ),
    "WITH RECURSIVE t AS (SELECT min(tenant) AS tenant FROM sessions UNION ALL SELECT (SELECT min(s.tenant) FROM sessions AS s"
    " WHERE s.tenant > t.tenant) FROM t WHERE t.tenant IS NOT NULL) SELECT tenant FROM t": "RECURSIVE",
    "SELECT f.title FROM unnest($3::text[]) AS o(tenant) JOIN LATERAL (SELECT s.title FROM sessions AS s WHERE s.tenant ="
    " o.tenant LIMIT 1) AS f ON true": "LATERAL",
    "SELECT s.title FROM sessions AS s JOIN session_messages AS m ON m.tenant = s.tenant": "not joined on the session",
    "SELECT s.title, row_number() OVER (PARTITION BY s.tenant ORDER BY s.created_at) FROM sessions AS s": "window",
    "INSERT INTO session_states (tenant, session_id) SELECT s.tenant, s.session_id FROM sessions AS s": "more than one session",
    "INSERT INTO session_states (tenant, session_id) VALUES ($1, $2), ($1, $3)": "several rows",
    f"SELECT s.title, statement_timestamp() AS now FROM sessions AS s WHERE {_ONE} FOR UPDATE": "a node's own",
    f"UPDATE sessions AS s SET version = random() WHERE {_ONE}": "VOLATILE",
    f"UPDATE sessions AS s SET expires_at = now() + s.idle_active * interval '1 second' WHERE {_ONE}": "of a column",
    f"UPDATE sessions AS s SET listed_at = date_trunc('minute', s.updated_at) WHERE {_ONE}": "of a column",
    f"UPDATE sessions AS s SET available_at = CASE WHEN s.runs THEN now() ELSE s.available_at END WHERE {_ONE}": "within CASE",
    f"UPDATE sessions AS s SET version = 1 WHERE {_ONE} RETURNING statement_timestamp()": "RETURNING",
    "INSERT INTO session_states (tenant, session_id) VALUES ($1, $2) ON CONFLICT (tenant, session_id) DO UPDATE SET"
    " saved_at = now()": "ON CONFLICT",
    f"UPDATE sessions AS s SET version = to_something(1) WHERE {_ONE}": "look its volatility up",
}


@pytest.mark.parametrize(("sql", "expected"), TAKEN.items())
def test_what_is_taken(sql: str, expected: str) -> None:
    """It has its class, by what it names in each of its parts."""
    assert classify(sql, _NAMES) == expected


@pytest.mark.parametrize(("sql", "reason"), REFUSED.items())
def test_what_is_refused(sql: str, reason: str) -> None:
    """It is seen, and why."""
    with pytest.raises(Refused, match=reason):
        classify(sql, _NAMES)
