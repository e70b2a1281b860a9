"""The floor of the sweeps on PostgreSQL: the same work on our tables in hand-written SQL, on a raw psycopg connection.

It picks what is due as the sweeps do, passing over what others have locked, writes the same columns and lines, and
removes from the same tables; a batch is one transaction.
"""

from typing import Any, Final

import psycopg

from lifecycle.models import tables as t

RETENTION: Final = "1 second"
"""For how long what was expired is kept."""

_EXPIRE: Final = f"""
WITH due AS (
  SELECT tenant, session_id, state FROM sessions
  WHERE expires_at <= now() AND state IN ('active', 'suspended') AND NOT protected AND deleted_at IS NULL
    AND (lease_holder IS NULL OR lease_expires_at <= now())
  ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), moved AS (
  UPDATE sessions s SET state = 'expired', reason = 'idle', version = version + 1, next_seq = next_seq + 1,
    updated_at = now(), listed_at = date_trunc('minute', now()), last_active_at = now(), lease_holder = NULL,
    lease_expires_at = NULL, lease_epoch = lease_epoch + CASE WHEN lease_holder IS NULL THEN 0 ELSE 1 END,
    ended_at = now(), prune_at = now() + interval '{RETENTION}', expires_at = NULL, ghost_at = NULL, available_at = NULL
  FROM due WHERE s.tenant = due.tenant AND s.session_id = due.session_id
  RETURNING s.tenant, s.session_id, s.next_seq, s.version, due.state AS before
), audit AS (
  INSERT INTO session_transitions (tenant, session_id, seq, trigger_name, from_state, to_state, reason, version,
    created_at, txid)
  SELECT tenant, session_id, next_seq - 1, 'expire', before, 'expired', 'idle', version, now(),
    pg_current_xact_id()::text::bigint FROM moved
) SELECT tenant, session_id FROM moved"""

_PICK: Final = """
SELECT tenant, session_id FROM sessions
WHERE prune_at <= now() AND state IN ('completed', 'ended', 'expired') AND NOT protected
  AND (lease_holder IS NULL OR lease_expires_at <= now())
ORDER BY prune_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED"""

# One statement for all tables: it takes its snapshot when the sessions are locked already.
_REMOVE: Final = (
    "WITH keys AS (SELECT * FROM unnest(%(tenants)s::text[], %(ids)s::text[]) AS given (tenant, session_id)), "
    + ", ".join(
        f"of_{table.name} AS (DELETE FROM {table.name} x USING keys k"
        " WHERE x.tenant = k.tenant AND x.session_id = k.session_id)"
        for table in (*t.CHILDREN, t.transitions)
    )
    + """, gone AS (
  DELETE FROM sessions x USING keys k WHERE x.tenant = k.tenant AND x.session_id = k.session_id RETURNING x.*
), audit AS (
  INSERT INTO session_transitions (tenant, session_id, seq, trigger_name, from_state, reason, version, created_at, txid)
  SELECT tenant, session_id, next_seq, 'delete', state, 'pruned', version, now(), pg_current_xact_id()::text::bigint
  FROM gone
) SELECT tenant, session_id FROM gone"""
)


def expire_idle(connection: psycopg.Connection[Any], limit: int) -> int:
    """Expire at most so many sessions; how many it was."""
    return len(connection.execute(_EXPIRE, {"limit": limit}).fetchall())


def prune_sessions(connection: psycopg.Connection[Any], limit: int) -> int:
    """Remove at most so many sessions; how many it was."""
    with connection.transaction():
        picked = connection.execute(_PICK, {"limit": limit}).fetchall()
        if not picked:
            return 0
        tenants, ids = zip(*picked, strict=True)
        return len(connection.execute(_REMOVE, {"tenants": list(tenants), "ids": list(ids)}).fetchall())
