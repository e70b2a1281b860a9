"""Loading a state on SQLite: one statement, as the snapshot is a statement's own.

`group_concat` takes rows in the order of the subquery that it reads, which SQLite keeps for it (its `SF_OrderByReqd`);
an ORDER BY of its own it knows since 3.44 only.
"""

from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from lifecycle import states
from lifecycle.models import tables as t
from lifecycle.operations import requests as r
from lifecycle.recipes.keyed import first
from lifecycle.recipes.portable.base import is_in, key, of_key
from lifecycle.recipes.statement import Single, Statement

S = t.sessions.c
_OF: Final = "e.tenant = sessions.tenant AND e.session_id = sessions.session_id"


def _runs() -> str:
    run = (
        f"(SELECT group_concat(content, ',') FROM (SELECT e.content FROM session_entries e WHERE {_OF}"
        " AND e.number BETWEEN runs.first AND runs.last ORDER BY e.number))"
    )
    count = f"(SELECT count(*) FROM session_entries e WHERE {_OF} AND e.number BETWEEN runs.first AND runs.last)"
    runs = (
        "SELECT key AS place, json_extract(value, '$[0]') AS first, json_extract(value, '$[1]') AS last"
        " FROM json_each(sessions.entries_before) UNION ALL SELECT 1000000, sessions.entries_from,"
        " sessions.next_entry - 1 WHERE sessions.entries_from < sessions.next_entry"
    )
    return (
        "(SELECT CASE WHEN sum(n) = sum(wanted) THEN '[' || coalesce(group_concat(text, ','), '') || ']' ELSE '' END"
        f" FROM (SELECT {run} AS text, {count} AS n, runs.last - runs.first + 1 AS wanted FROM ({runs}) runs"
        " ORDER BY runs.place))"
    )


def _conversation() -> Any:
    """The text of a conversation: NULL for none, and empty where an entry is missing."""
    simple = (
        "(SELECT CASE WHEN count(*) = sessions.next_entry - sessions.entries_from THEN"
        " '[' || coalesce(group_concat(content, ','), '') || ']' ELSE '' END"
        f" FROM (SELECT e.content FROM session_entries e WHERE {_OF} AND e.number >= sessions.entries_from"
        " AND e.number < sessions.next_entry ORDER BY e.number))"
    )
    text = (
        f"CASE WHEN sessions.entries_from IS NULL THEN NULL WHEN sessions.entries_before IS NULL THEN {simple}"
        f" ELSE {_runs()} END"
    )
    return sa.literal_column(text, sa.Text()).label("conversation")


def _document(name: str) -> Any:
    """The text of a document, put together where it is in pieces; empty where one is missing."""
    value = (
        "(SELECT v.content FROM session_values v WHERE v.tenant = sessions.tenant"
        " AND v.session_id = sessions.session_id AND v.name = parts.value)"
    )
    text = (
        f"CASE WHEN session_states.{name}_pieces IS NULL THEN session_states.{name} ELSE"
        " (SELECT CASE WHEN count(text) = count(*) THEN group_concat(text, '') ELSE '' END FROM"
        f" (SELECT CASE parts.key % 2 WHEN 0 THEN parts.value ELSE {value} END AS text"
        f" FROM json_each(session_states.{name}_pieces) parts ORDER BY parts.key)) END"
    )
    return sa.literal_column(text, sa.Text()).label(name)


@cache
def load_statement(any_state: bool) -> Statement:
    """Read the saved state with the session's phase and step."""
    documents = t.session_states
    beside = sa.outerjoin(
        t.sessions, documents, sa.and_(documents.c.tenant == S.tenant, documents.c.session_id == S.session_id)
    )
    chosen = (
        sa.select(
            S.session_id,
            _conversation(),
            _document("context"),
            _document("plan"),
            S.phase,
            S.step,
            S.version,
            S.saved_at,
        )
        .select_from(beside)
        .where(of_key(t.sessions), S.saved_at.is_not(None), S.deleted_at.is_(None))
    )
    return Statement(chosen if any_state else chosen.where(is_in(S.state, states.LIVE)))


READS: dict[type[r.Request], Single] = {
    r.LoadState: Single(lambda request: load_statement(request.any_state), key, first),
}
