"""The floor on PostgreSQL: each hot operation as one statement, written by hand, on a raw psycopg connection.

The statements write what the operations write (session, state, message, audit row, deadlines) and check what they
check, so that the difference is what the library adds.
"""

import json
from typing import Any

from benchmarks.payload import dumps

# To a twentieth of the day, as ours: a deadline that moved with every write would change each of the table's indexes.
_EXPIRY = "to_timestamp(ceil((extract(epoch FROM statement_timestamp())::float8 + 86400) / 4320) * 4320)"
_DEADLINES = f"""updated_at = statement_timestamp(), listed_at = date_trunc('minute', statement_timestamp()),
    last_active_at = statement_timestamp(), expires_at = {_EXPIRY}"""

CREATE = f"""
WITH made AS (
  INSERT INTO sessions (tenant, session_id, kind, user_id, title, title_folded, state, metadata, config, version,
    next_seq, created_at, updated_at, listed_at, last_active_at, idle_active, idle_suspended, ghost_at, expires_at)
  VALUES ('', %(id)s, 'chat', %(user)s, %(title)s, lower(%(title)s), 'active', %(metadata)s, '{{}}', 1, 2,
    statement_timestamp(), statement_timestamp(), date_trunc('minute', statement_timestamp()), statement_timestamp(),
    86400, 2592000, statement_timestamp() + interval '15 minutes', {_EXPIRY})
  ON CONFLICT DO NOTHING RETURNING *
), audit AS (
  INSERT INTO session_transitions (tenant, session_id, seq, trigger_name, to_state, version, txid, created_at)
  SELECT tenant, session_id, 1, 'create', state, version, pg_current_xact_id()::text::bigint, created_at FROM made
) SELECT * FROM made"""

GET = "SELECT metadata, config, * FROM sessions WHERE tenant = '' AND session_id = %(id)s AND deleted_at IS NULL"

SAVE = f"""
WITH moved AS (
  UPDATE sessions SET version = version + 1, step = %(step)s, ghost_at = NULL,
    saved_at = statement_timestamp(), {_DEADLINES}
  WHERE tenant = '' AND session_id = %(id)s AND state = 'active' AND deleted_at IS NULL AND lease_holder IS NULL
  RETURNING tenant, session_id, version
), written AS (
  INSERT INTO session_states (tenant, session_id, context)
  SELECT tenant, session_id, %(context)s FROM moved
  ON CONFLICT (tenant, session_id) DO UPDATE SET context = excluded.context
) SELECT version FROM moved"""

LOAD = """
SELECT s.session_id, NULL AS conversation, d.context, d.plan, s.phase, s.step, s.version, s.saved_at
FROM sessions s JOIN session_states d USING (tenant, session_id)
WHERE s.tenant = '' AND s.session_id = %(id)s AND s.state IN ('active', 'suspended') AND s.deleted_at IS NULL"""

ADD_MESSAGE = f"""
WITH moved AS (
  UPDATE sessions SET next_seq = next_seq + 1, message_count = message_count + 1,
    last_message_at = statement_timestamp(), ghost_at = NULL, {_DEADLINES}
  WHERE tenant = '' AND session_id = %(id)s AND state IN ('active', 'suspended') AND deleted_at IS NULL
    AND lease_holder IS NULL
  RETURNING tenant, session_id, next_seq - 1 AS seq, last_message_at
), added AS (
  INSERT INTO session_messages (tenant, session_id, seq, message_id, role, content, encoding, created_at)
  SELECT tenant, session_id, seq, %(message)s, 'assistant', %(content)s, 'text', last_message_at FROM moved
) SELECT seq, last_message_at FROM moved"""

ADD_MESSAGES = f"""
WITH moved AS (
  UPDATE sessions SET next_seq = next_seq + %(n)s, message_count = message_count + %(n)s,
    last_message_at = statement_timestamp(), ghost_at = NULL, {_DEADLINES}
  WHERE tenant = '' AND session_id = %(id)s AND state IN ('active', 'suspended') AND deleted_at IS NULL
    AND lease_holder IS NULL
  RETURNING tenant, session_id, next_seq - %(n)s AS first, last_message_at
), added AS (
  INSERT INTO session_messages (tenant, session_id, seq, message_id, role, content, encoding, created_at)
  SELECT tenant, session_id, first + place - 1, message, role, content, 'text', last_message_at
  FROM moved, unnest(%(messages)s::text[], %(roles)s::text[], %(contents)s::text[])
    WITH ORDINALITY AS given (message, role, content, place)
) SELECT first, last_message_at FROM moved"""

MOVE = f"""
WITH locked AS (
  SELECT tenant, session_id, state FROM sessions
  WHERE tenant = '' AND session_id = %(id)s AND deleted_at IS NULL FOR UPDATE
), moved AS (
  UPDATE sessions s SET state = %(to)s, version = version + 1, next_seq = next_seq + 1, {_DEADLINES}
  FROM locked l WHERE s.tenant = l.tenant AND s.session_id = l.session_id AND l.state = %(from)s
  RETURNING s.*
), audit AS (
  INSERT INTO session_transitions (tenant, session_id, seq, trigger_name, from_state, to_state, version, txid, created_at)
  SELECT tenant, session_id, next_seq - 1, %(trigger)s, %(from)s, state, version, pg_current_xact_id()::text::bigint,
    updated_at FROM moved
) SELECT * FROM moved"""

MESSAGES = """
SELECT m.metadata, m.seq, m.message_id, m.role, m.content, m.encoding, m.agent_id, m.created_at FROM session_messages m
WHERE m.tenant = '' AND m.session_id = %(id)s AND EXISTS (
  SELECT 1 FROM sessions s WHERE s.tenant = m.tenant AND s.session_id = m.session_id AND s.deleted_at IS NULL)
ORDER BY m.seq LIMIT %(limit)s"""

TOUCH = f"""
UPDATE sessions SET last_active_at = statement_timestamp(),
  expires_at = greatest(expires_at, {_EXPIRY})
WHERE tenant = '' AND session_id = %(id)s AND state IN ('active', 'suspended') AND deleted_at IS NULL
RETURNING session_id"""

BEAT = f"""
UPDATE sessions SET lease_expires_at = statement_timestamp() + %(ttl)s * interval '1 second',
  last_active_at = statement_timestamp(), expires_at = greatest(expires_at, {_EXPIRY})
WHERE tenant = '' AND session_id = %(id)s AND lease_holder = %(holder)s AND lease_epoch = %(epoch)s
RETURNING session_id"""

BEATS = f"""
WITH locked AS (
  SELECT s.tenant, s.session_id, given.ttl
  FROM sessions s JOIN unnest(%(ids)s::text[], %(epochs)s::bigint[], %(ttls)s::float8[]) AS given (id, epoch, ttl)
    ON s.session_id = given.id
  WHERE s.tenant = '' AND s.lease_holder IS NOT DISTINCT FROM %(holder)s AND s.lease_epoch = given.epoch
  ORDER BY s.tenant, s.session_id FOR UPDATE OF s
)
UPDATE sessions s SET lease_expires_at = statement_timestamp() + l.ttl * interval '1 second',
  last_active_at = statement_timestamp(), expires_at = greatest(expires_at, {_EXPIRY})
FROM locked l WHERE s.tenant = l.tenant AND s.session_id = l.session_id
RETURNING s.session_id"""

# As one writes a queue: the oldest that nobody has locked. It knows neither turns of tenants nor runners that died.
CLAIM = f"""
WITH picked AS (
  SELECT tenant, session_id FROM sessions
  WHERE tenant = '' AND kind = %(kind)s AND state = 'active' AND deleted_at IS NULL AND lease_holder IS NULL
    AND available_at <= statement_timestamp()
  ORDER BY available_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE sessions s SET lease_holder = %(holder)s, lease_epoch = lease_epoch + 1,
  lease_expires_at = statement_timestamp() + %(ttl)s * interval '1 second', available_at = NULL, claimed_version = version,
  attempts = 1, last_active_at = statement_timestamp(),
  expires_at = greatest(expires_at, {_EXPIRY})
FROM picked p WHERE s.tenant = p.tenant AND s.session_id = p.session_id
RETURNING s.metadata, s.config, s.*"""


def create(session: str) -> tuple[str, dict[str, Any]]:
    """The statement and parameters of a creation."""
    return CREATE, {"id": session, "user": "ann", "title": "A title", "metadata": dumps({"tier": "gold"})}


def read_session(rows: list[Any]) -> Any:
    """The row of `GET` or `CLAIM` with its two documents decoded; None where there is none."""
    return (json.loads(rows[0][0]), json.loads(rows[0][1]), rows[0]) if rows else None


def read_state(rows: list[Any]) -> Any:
    """The row of `LOAD` with its document decoded; None where there is none."""
    return (json.loads(rows[0][2]), rows[0]) if rows else None


def read_messages(rows: list[Any]) -> Any:
    """The rows of `MESSAGES` with their documents decoded."""
    return [(None if row[0] is None else json.loads(row[0]), row) for row in rows]


def save(session: str, step: int, context: Any) -> tuple[str, dict[str, Any]]:
    """Those of a save."""
    return SAVE, {"id": session, "step": step, "context": dumps(context)}


def add(session: str, message: str, content: str) -> tuple[str, dict[str, Any]]:
    """Those of one message."""
    return ADD_MESSAGE, {"id": session, "message": message, "content": content}


def add_many(session: str, messages: list[str], content: str) -> tuple[str, dict[str, Any]]:
    """Those of several messages."""
    n = len(messages)
    return ADD_MESSAGES, {
        "id": session, "n": n, "messages": messages, "roles": ["assistant"] * n, "contents": [content] * n,
    }  # fmt: skip


def move(session: str, trigger: str) -> tuple[str, dict[str, Any]]:
    """Those of a suspension or a resumption."""
    source, target = ("active", "suspended") if trigger == "suspend" else ("suspended", "active")
    return MOVE, {"id": session, "trigger": trigger, "from": source, "to": target}
