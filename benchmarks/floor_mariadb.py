"""The floor on MariaDB: each hot operation as the few statements it takes, by hand, on a raw PyMySQL connection.

Every statement is a round trip. What a write needs to know comes back in `LAST_INSERT_ID`, which is part of the answer
to the update, and not from a read of its own.
"""

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pymysql

from benchmarks.payload import dumps

_NOW = "UTC_TIMESTAMP(6)"
_MINUTE = f"{_NOW} - INTERVAL SECOND({_NOW}) SECOND - INTERVAL MICROSECOND({_NOW}) MICROSECOND"
# Rounded to a twentieth of the day, as ours: a new one at every write would change the indexes.
_EXPIRY = f"FROM_UNIXTIME(CEIL((UNIX_TIMESTAMP({_NOW}) + 86400) / 4320) * 4320)"
_DEADLINES = f"""updated_at = {_NOW}, listed_at = {_MINUTE}, last_active_at = {_NOW},
    expires_at = {_EXPIRY}"""
_AUDIT = f"""
INSERT INTO session_transitions (tenant, session_id, seq, trigger_name, from_state, to_state, version, created_at)
VALUES ('', %s, %s, %s, %s, %s, %s, {_NOW})"""


def connect(url: str) -> Any:
    """A connection that commits when it is told to."""
    parts = urlsplit(url)
    connection = pymysql.connect(
        unix_socket=parse_qs(parts.query)["unix_socket"][0],
        user=parts.username,
        database=parts.path.removeprefix("/"),
        autocommit=True,
    )
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        cursor.execute("SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'")
    return connection


def create(raw: Any, session: str) -> Any:
    """Insert the session and its audit row."""
    with raw.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(
            f"""INSERT INTO sessions (tenant, session_id, kind, user_id, title, title_folded, state, metadata, config,
                  version, next_seq, created_at, updated_at, listed_at, last_active_at, idle_active, idle_suspended,
                  ghost_at, expires_at)
                VALUES ('', %s, 'chat', 'ann', 'A title', 'a title', 'active', %s, '{{}}', 1, 2, {_NOW}, {_NOW}, {_MINUTE},
                  {_NOW}, 86400, 2592000, {_NOW} + INTERVAL 15 MINUTE, {_EXPIRY})
                RETURNING *""",
            (session, dumps({"tier": "gold"})),
        )
        row = cursor.fetchone()
        cursor.execute(_AUDIT, (session, 1, "create", None, "active", 1))
        cursor.execute("COMMIT")
    return row


def get(raw: Any, session: str) -> Any:
    """Read the session, its two documents decoded."""
    with raw.cursor() as cursor:
        cursor.execute(
            "SELECT metadata, config, sessions.* FROM sessions"
            " WHERE tenant = '' AND session_id = %s AND deleted_at IS NULL",
            (session,),
        )
        row = cursor.fetchone()
    return json.loads(row[0]), json.loads(row[1]), row


def save(raw: Any, session: str, step: int, context: Any) -> Any:
    """Bump the version, write the context."""
    text = dumps(context)
    with raw.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(
            f"""UPDATE sessions SET version = LAST_INSERT_ID(version + 1), step = %s, ghost_at = NULL,
                  saved_at = {_NOW}, {_DEADLINES}
                WHERE tenant = '' AND session_id = %s AND state = 'active' AND deleted_at IS NULL
                  AND lease_holder IS NULL""",
            (step, session),
        )
        version = cursor.lastrowid
        cursor.execute(
            """INSERT INTO session_states (tenant, session_id, context) VALUES ('', %s, %s)
               ON DUPLICATE KEY UPDATE context = VALUES(context)""",
            (session, text),
        )
        cursor.execute("COMMIT")
    return version


def load(raw: Any, session: str) -> Any:
    """Read the saved state, its document decoded."""
    with raw.cursor() as cursor:
        cursor.execute(
            """SELECT s.session_id, NULL AS conversation, d.context, d.plan, s.phase, s.step, s.version, s.saved_at
               FROM sessions s JOIN session_states d USING (tenant, session_id)
               WHERE s.tenant = '' AND s.session_id = %s AND s.state IN ('active', 'suspended')
                 AND s.deleted_at IS NULL""",
            (session,),
        )
        row = cursor.fetchone()
    return json.loads(row[2]), row


def add(raw: Any, session: str, messages: list[str], content: str) -> Any:
    """Take the next numbers, insert the messages."""
    n = len(messages)
    with raw.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(
            f"""UPDATE sessions SET next_seq = LAST_INSERT_ID(next_seq + %s), message_count = message_count + %s,
                  last_message_at = {_NOW}, ghost_at = NULL, {_DEADLINES}
                WHERE tenant = '' AND session_id = %s AND state IN ('active', 'suspended') AND deleted_at IS NULL
                  AND lease_holder IS NULL""",
            (n, n, session),
        )
        end = cursor.lastrowid
        cursor.executemany(
            f"""INSERT INTO session_messages (tenant, session_id, seq, message_id, role, content, encoding, created_at)
                VALUES ('', %s, %s, %s, 'assistant', %s, 'text', {_NOW})""",
            [(session, end - n + i, message, content) for i, message in enumerate(messages)],
        )
        cursor.execute("COMMIT")
    return end


def messages(raw: Any, session: str, limit: int) -> Any:
    """Read the first messages, their documents decoded."""
    with raw.cursor() as cursor:
        cursor.execute(
            """SELECT m.metadata, m.seq, m.message_id, m.role, m.content, m.encoding, m.agent_id, m.created_at
               FROM session_messages m
               WHERE m.tenant = '' AND m.session_id = %s AND EXISTS (
                 SELECT 1 FROM sessions s
                 WHERE s.tenant = m.tenant AND s.session_id = m.session_id AND s.deleted_at IS NULL)
               ORDER BY m.seq LIMIT %s""",
            (session, limit),
        )
        return [(None if row[0] is None else json.loads(row[0]), row) for row in cursor.fetchall()]


def move(raw: Any, session: str, trigger: str) -> Any:
    """Compare the state, set the new one, write the audit row."""
    source, target = ("active", "suspended") if trigger == "suspend" else ("suspended", "active")
    with raw.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(
            f"""UPDATE sessions SET state = %s, version = version + 1, next_seq = LAST_INSERT_ID(next_seq + 1),
                  {_DEADLINES}
                WHERE tenant = '' AND session_id = %s AND state = %s AND deleted_at IS NULL""",
            (target, session, source),
        )
        changed, number = cursor.rowcount, cursor.lastrowid
        cursor.execute(_AUDIT, (session, number - 1, trigger, source, target, number))
        cursor.execute("SELECT * FROM sessions WHERE tenant = '' AND session_id = %s", (session,))
        row = cursor.fetchone()
        cursor.execute("COMMIT")
    return row if changed else None


def touch(raw: Any, session: str) -> Any:
    """Push the deadline."""
    with raw.cursor() as cursor:
        cursor.execute(
            f"""UPDATE sessions SET last_active_at = {_NOW}, expires_at = GREATEST(expires_at, {_EXPIRY})
                WHERE tenant = '' AND session_id = %s AND state IN ('active', 'suspended') AND deleted_at IS NULL""",
            (session,),
        )
        return cursor.rowcount


def beat(raw: Any, leases: Sequence[tuple[str, int]], holder: str, ttl: float) -> Any:
    """Prolong leases, given as (session, epoch), in one statement."""
    keys = ", ".join(["(%s, %s)"] * len(leases))
    with raw.cursor() as cursor:
        cursor.execute(
            f"""UPDATE sessions SET lease_expires_at = {_NOW} + INTERVAL %s SECOND, last_active_at = {_NOW},
                  expires_at = GREATEST(expires_at, {_EXPIRY})
                WHERE tenant = '' AND lease_holder = %s AND session_id IN ({", ".join(["%s"] * len(leases))})
                  AND (session_id, lease_epoch) IN ({keys})""",
            (ttl, holder, *(session for session, _ in leases), *(part for lease in leases for part in lease)),
        )
        return cursor.rowcount


def claim(raw: Any, kind: str, holder: str, ttl: float) -> Any:
    """Lease the session that waits longest, its two documents decoded; no turns of tenants, no runners that died."""
    with raw.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(
            f"""SELECT session_id FROM sessions
                WHERE tenant = '' AND kind = %s AND state = 'active' AND deleted_at IS NULL AND lease_holder IS NULL
                  AND available_at <= {_NOW}
                ORDER BY available_at LIMIT 1 FOR UPDATE SKIP LOCKED""",
            (kind,),
        )
        (session,) = cursor.fetchone()
        cursor.execute(
            f"""UPDATE sessions SET lease_holder = %s, lease_epoch = lease_epoch + 1,
                  lease_expires_at = {_NOW} + INTERVAL %s SECOND, available_at = NULL, claimed_version = version,
                  attempts = 1, last_active_at = {_NOW}, expires_at = GREATEST(expires_at, {_EXPIRY})
                WHERE tenant = '' AND session_id = %s""",
            (holder, ttl, session),
        )
        cursor.execute(
            "SELECT metadata, config, sessions.* FROM sessions WHERE tenant = '' AND session_id = %s", (session,)
        )
        row = cursor.fetchone()
        cursor.execute("COMMIT")
    return json.loads(row[0]), json.loads(row[1]), row
