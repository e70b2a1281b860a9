"""The floor on SQLite: each hot operation as the few statements it takes, by hand, on a raw sqlite3 connection.

WAL with synchronous=FULL, one transaction for each write: what survives a power cut, as with the library.
"""

import json
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.payload import dumps

DAY = 86_400_000_000
MINUTE = 60_000_000
# Deadlines are rounded to a twentieth of the day, as ours: a new one at every write would change the indexes.
GRID = DAY // 20

_AUDIT = """INSERT INTO session_transitions (tenant, session_id, seq, trigger_name, from_state, to_state, version, created_at)
VALUES ('', ?, ?, ?, ?, ?, ?, ?)"""


def connect(url: str) -> sqlite3.Connection:
    """A connection to a database's file that commits when it is told to."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _now() -> tuple[int, int, int]:
    """The time, its minute, and the deadline a day later."""
    now = time.time_ns() // 1000
    return now, now - now % MINUTE, -(-(now + DAY) // GRID) * GRID


def create(raw: sqlite3.Connection, session: str) -> Any:
    """Insert the session and its audit row."""
    now, minute, expiry = _now()
    raw.execute("BEGIN IMMEDIATE")
    row = raw.execute(
        """INSERT INTO sessions (tenant, session_id, kind, user_id, title, title_folded, state, metadata, config, version,
             next_seq, message_count, created_at, updated_at, listed_at, last_active_at, idle_active, idle_suspended,
             ghost_at, expires_at)
           VALUES ('', ?, 'chat', 'ann', 'A title', 'a title', 'active', ?, '{}', 1, 2, 0, ?, ?, ?, ?, 86400, 2592000, ?, ?)
           ON CONFLICT DO NOTHING RETURNING *""",
        (session, dumps({"tier": "gold"}), now, now, minute, now, now + 15 * MINUTE, expiry),
    ).fetchone()
    raw.execute(_AUDIT, (session, 1, "create", None, "active", 1, now))
    raw.execute("COMMIT")
    return row


def get(raw: sqlite3.Connection, session: str) -> Any:
    """Read the session, its two documents decoded."""
    row = raw.execute(
        "SELECT metadata, config, * FROM sessions WHERE tenant = '' AND session_id = ? AND deleted_at IS NULL",
        (session,),
    ).fetchone()
    return json.loads(row[0]), json.loads(row[1]), row


def save(raw: sqlite3.Connection, session: str, step: int, context: Any) -> Any:
    """Bump the version, write the context."""
    text = dumps(context)
    now, minute, expiry = _now()
    raw.execute("BEGIN IMMEDIATE")
    (version,) = raw.execute(
        """UPDATE sessions SET version = version + 1, step = ?, ghost_at = NULL, saved_at = ?, updated_at = ?, listed_at = ?,
             last_active_at = ?, expires_at = ?
           WHERE tenant = '' AND session_id = ? AND state = 'active' AND deleted_at IS NULL AND lease_holder IS NULL
           RETURNING version""",
        (step, now, now, minute, now, expiry, session),
    ).fetchone()
    raw.execute(
        """INSERT INTO session_states (tenant, session_id, context) VALUES ('', ?, ?)
           ON CONFLICT (tenant, session_id) DO UPDATE SET context = excluded.context""",
        (session, text),
    )
    raw.execute("COMMIT")
    return version


def load(raw: sqlite3.Connection, session: str) -> Any:
    """Read the saved state, its document decoded."""
    row = raw.execute(
        """SELECT s.session_id, NULL AS conversation, d.context, d.plan, s.phase, s.step, s.version, s.saved_at
           FROM sessions s JOIN session_states d USING (tenant, session_id)
           WHERE s.tenant = '' AND s.session_id = ? AND s.state IN ('active', 'suspended') AND s.deleted_at IS NULL""",
        (session,),
    ).fetchone()
    return json.loads(row[2]), row


def add(raw: sqlite3.Connection, session: str, messages: list[str], content: str) -> Any:
    """Take the next numbers, insert the messages."""
    now, minute, expiry = _now()
    n = len(messages)
    raw.execute("BEGIN IMMEDIATE")
    (end,) = raw.execute(
        """UPDATE sessions SET next_seq = next_seq + ?, message_count = message_count + ?, last_message_at = ?,
             ghost_at = NULL, updated_at = ?, listed_at = ?, last_active_at = ?, expires_at = ?
           WHERE tenant = '' AND session_id = ? AND state IN ('active', 'suspended') AND deleted_at IS NULL
             AND lease_holder IS NULL
           RETURNING next_seq""",
        (n, n, now, now, minute, now, expiry, session),
    ).fetchone()
    raw.executemany(
        """INSERT INTO session_messages (tenant, session_id, seq, message_id, role, content, encoding, created_at)
           VALUES ('', ?, ?, ?, 'assistant', ?, 'text', ?)""",
        [(session, end - n + i, message, content, now) for i, message in enumerate(messages)],
    )
    raw.execute("COMMIT")
    return end


def move(raw: sqlite3.Connection, session: str, trigger: str) -> Any:
    """Compare the state, set the new one, write the audit row."""
    source, target = ("active", "suspended") if trigger == "suspend" else ("suspended", "active")
    now, minute, expiry = _now()
    raw.execute("BEGIN IMMEDIATE")
    row = raw.execute(
        """UPDATE sessions SET state = ?, version = version + 1, next_seq = next_seq + 1, updated_at = ?, listed_at = ?,
             last_active_at = ?, expires_at = ?
           WHERE tenant = '' AND session_id = ? AND state = ? AND deleted_at IS NULL RETURNING *""",
        (target, now, minute, now, expiry, session, source),
    ).fetchone()
    raw.execute(_AUDIT, (session, 2, trigger, source, target, 2, now))
    raw.execute("COMMIT")
    return row


def touch(raw: sqlite3.Connection, session: str) -> Any:
    """Push the deadline."""
    now, _, expiry = _now()
    # One statement is a transaction of its own.
    return raw.execute(
        """UPDATE sessions SET last_active_at = ?, expires_at = max(expires_at, ?)
           WHERE tenant = '' AND session_id = ? AND state IN ('active', 'suspended') AND deleted_at IS NULL
           RETURNING session_id""",
        (now, expiry, session),
    ).fetchone()


def messages(raw: sqlite3.Connection, session: str, limit: int) -> Any:
    """Read the first messages, their documents decoded."""
    rows = raw.execute(
        """SELECT m.metadata, m.seq, m.message_id, m.role, m.content, m.encoding, m.agent_id, m.created_at
           FROM session_messages m
           WHERE m.tenant = '' AND m.session_id = ? AND EXISTS (
             SELECT 1 FROM sessions s
             WHERE s.tenant = m.tenant AND s.session_id = m.session_id AND s.deleted_at IS NULL)
           ORDER BY m.seq LIMIT ?""",
        (session, limit),
    ).fetchall()
    return [(None if row[0] is None else json.loads(row[0]), row) for row in rows]


def beat(raw: sqlite3.Connection, leases: Sequence[tuple[str, int]], holder: str, ttl: float) -> Any:
    """Prolong leases, given as (session, epoch)."""
    now, _, expiry = _now()
    raw.execute("BEGIN IMMEDIATE")
    done = raw.executemany(
        """UPDATE sessions SET lease_expires_at = ?, last_active_at = ?, expires_at = max(expires_at, ?)
           WHERE tenant = '' AND session_id = ? AND lease_holder = ? AND lease_epoch = ?""",
        [(now + int(ttl * 1e6), now, expiry, session, holder, epoch) for session, epoch in leases],
    ).rowcount
    raw.execute("COMMIT")
    return done


def claim(raw: sqlite3.Connection, kind: str, holder: str, ttl: float) -> Any:
    """Lease the session that waits longest, its two documents decoded; no turns of tenants, no runners that died."""
    now, _, expiry = _now()
    raw.execute("BEGIN IMMEDIATE")
    row = raw.execute(
        """UPDATE sessions SET lease_holder = ?, lease_epoch = lease_epoch + 1, lease_expires_at = ?, available_at = NULL,
             claimed_version = version, attempts = 1, last_active_at = ?, expires_at = max(expires_at, ?)
           WHERE rowid = (
             SELECT rowid FROM sessions
             WHERE tenant = '' AND kind = ? AND state = 'active' AND deleted_at IS NULL AND lease_holder IS NULL
               AND available_at <= ?
             ORDER BY available_at LIMIT 1)
           RETURNING metadata, config, *""",
        (holder, now + int(ttl * 1e6), now, expiry, kind, now),
    ).fetchone()
    raw.execute("COMMIT")
    return None if row is None else (json.loads(row[0]), json.loads(row[1]), row)
