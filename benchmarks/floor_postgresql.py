"""The floor on PostgreSQL: each hot operation as one statement, written by hand, on a raw psycopg connection.

The statements write what the operations write (session, state, message, audit row, deadlines) and check what they
check, so that the difference is what the library adds.
"""

import json
from typing import Any

from benchmarks.payload import dumps

_DEADLINES = """updated_at = statement_timestamp(), listed_at = date_trunc('minute', statement_timestamp()),
    last_active_at = statement_timestamp(), expires_at = statement_timestamp() + interval '1 day'"""

CREATE = """
WITH made AS (
  INSERT INTO sessions (tenant, session_id, kind, user_id, title, title_folded, state, metadata, config, version,
    next_seq, created_at, updated_at, listed_at, last_active_at, idle_active, idle_suspended, ghost_at, expires_at)
  VALUES ('', %(id)s, 'chat', %(user)s, %(title)s, lower(%(title)s), 'active', %(metadata)s, '{}', 1, 2,
    statement_timestamp(), statement_timestamp(), date_trunc('minute', statement_timestamp()), statement_timestamp(),
    86400, 2592000, statement_timestamp() + interval '15 minutes', statement_timestamp() + interval '1 day')
  ON CONFLICT DO NOTHING RETURNING *
), audit AS (
  INSERT INTO session_transitions (tenant, session_id, seq, trigger_name, to_state, version, txid, created_at)
  SELECT tenant, session_id, 1, 'create', state, version, pg_current_xact_id()::text::bigint, created_at FROM made
) SELECT * FROM made"""

GET = "SELECT metadata, config, * FROM sessions WHERE tenant = '' AND session_id = %(id)s AND deleted_at IS NULL"

SAVE = f"""
WITH moved AS (
  UPDATE sessions SET version = version + 1, step = %(step)s, ghost_at = NULL, {_DEADLINES}
  WHERE tenant = '' AND session_id = %(id)s AND state = 'active' AND deleted_at IS NULL AND lease_holder IS NULL
  RETURNING tenant, session_id, version
), written AS (
  INSERT INTO session_states (tenant, session_id, context, version, saved_at)
  SELECT tenant, session_id, %(context)s, version, statement_timestamp() FROM moved
  ON CONFLICT (tenant, session_id) DO UPDATE
  SET context = excluded.context, version = excluded.version, saved_at = excluded.saved_at
) SELECT version FROM moved"""

LOAD = """
SELECT s.session_id, d.conversation, d.context, d.plan, s.phase, s.step, s.version, d.saved_at
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

TOUCH = """
UPDATE sessions SET last_active_at = statement_timestamp(),
  expires_at = greatest(expires_at, statement_timestamp() + interval '1 day')
WHERE tenant = '' AND session_id = %(id)s AND state IN ('active', 'suspended') AND deleted_at IS NULL
RETURNING session_id"""


def create(session: str) -> tuple[str, dict[str, Any]]:
    """The statement and parameters of a creation."""
    return CREATE, {"id": session, "user": "ann", "title": "A title", "metadata": dumps({"tier": "gold"})}


def read_session(row: Any) -> Any:
    """A row of `GET` with its two documents decoded."""
    return json.loads(row[0]), json.loads(row[1]), row


def read_state(row: Any) -> Any:
    """A row of `LOAD` with its document decoded."""
    return json.loads(row[2]), row


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
