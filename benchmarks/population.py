"""Many sessions in a database: what lists, searches and the dashboard are measured on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from lifecycle import ALL, SessionManager

TENANT: Final = "acme"
"""Whose most of them are."""
OTHERS: Final = 19
"""So many other tenants have a twentieth as many again, all of them together."""

# Sessions of 30 days in every state, their deadlines ahead; some leased, some waiting, one in 50,000 rescued twice.
_NUMBERED: Final = f"""
SELECT i, CASE WHEN i <= %(n)s THEN '{TENANT}' ELSE 't' || i %% {OTHERS} END AS tenant,
  now() - (CASE WHEN i <= %(n)s THEN i ELSE (i - %(n)s) * 20.0 END / %(n)s)::float8 * interval '30 days' AS at
FROM generate_series(1, %(n)s + %(n)s / 20) AS i
"""
_SESSIONS: Final = f"""
INSERT INTO sessions (tenant, session_id, kind, user_id, agent_id, title, title_folded, state, metadata, config, version,
  next_seq, message_count, created_at, updated_at, listed_at, last_active_at, idle_active, idle_suspended, expires_at,
  ended_at, prune_at, lease_holder, lease_expires_at, available_at, rescues)
SELECT tenant, md5(i::text), (ARRAY['chat','chat','chat','cron','copilot'])[1 + i / 7 %% 5],
  'user' || i %% 20000, 'agent' || i %% 50, 'About ' || md5((i * 7)::text), 'about ' || md5((i * 7)::text), state, '{{}}',
  '{{}}', 1, 5, 3, at, at, date_trunc('minute', at), at, 86400, 2592000,
  CASE WHEN live THEN now() + (i %% 86400 + 3600) * interval '1 second' END, CASE WHEN NOT live THEN at END,
  CASE WHEN NOT live THEN now() + (i %% 86400 + 3600) * interval '1 second' END,
  CASE WHEN live AND i %% 200 = 0 THEN 'runner' || i %% 10 END,
  CASE WHEN live AND i %% 200 = 0 THEN now() + interval '1 hour' END,
  CASE WHEN state = 'active' AND i %% 300 = 1 THEN now() + interval '1 hour' END,
  CASE WHEN i %% 50000 = 0 THEN 3 ELSE 0 END
FROM (SELECT *, state IN ('active', 'suspended') AS live FROM (
  SELECT *, (ARRAY['active','active','suspended','completed','completed','completed','completed','ended','expired',
    'expired'])[1 + i / 35 %% 10] AS state
  FROM ({_NUMBERED}) AS numbered) AS made) AS told
"""
_AUDIT: Final = f"""
INSERT INTO session_transitions (tenant, session_id, seq, trigger_name, to_state, version, txid, created_at)
SELECT tenant, md5(i::text), 1, 'create', 'active', 1, 1, at FROM ({_NUMBERED}) AS numbered ORDER BY at
"""
_APPROVALS: Final = f"""
INSERT INTO session_approvals (tenant, session_id, approval_id, action, state, requested_at, expires_at)
SELECT tenant, md5(i::text), 'a', 'deploy', CASE WHEN i %% 1000 = 1 THEN 'pending' ELSE 'approved' END, now(),
  now() + interval '1 hour' FROM ({_NUMBERED}) AS numbered WHERE i %% 10 = 1
"""


def fill(url: str, sessions: int) -> None:
    """Fill an empty database on PostgreSQL, and have it analysed, as autovacuum would.

    Indexes are made behind the rows, and what was written is on the disk when this returns.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET maintenance_work_mem = '256MB'")
        with without_indexes(connection, "sessions", "session_transitions"):
            for statement in (_SESSIONS, _AUDIT, _APPROVALS):
                connection.execute(statement, {"n": sessions}, prepare=False)
        connection.execute("VACUUM ANALYZE")
    with SessionManager.open(url, ALL) as manager:
        manager.take_sample()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")


@contextmanager
def without_indexes(connection: psycopg.Connection[Any], *tables: str) -> Iterator[None]:
    """Drop the indexes of some tables, but for their keys, and make them anew in the end: filling is faster so."""
    found = connection.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = ANY(%s) AND indexname ~ '^(ix|uq)_'",
        (list(tables),),
    ).fetchall()
    for name, _ in found:
        connection.execute(f"DROP INDEX {name}".encode())
    yield
    for _, definition in found:
        connection.execute(definition.encode())
