"""Databases full of everything for tests, and digests of all that they hold, made without the code under test."""

import base64
import contextlib
import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import sqlalchemy as sa

from lifecycle import urls
from lifecycle.models import tables as t

TABLES = (t.sessions, *t.CHILDREN, t.transitions)
START = datetime(2026, 11, 21, 7, 0, 0, 123456, tzinfo=UTC)
_STATES = ("active", "suspended", "completed", "ended", "expired")
_TEXTS = ("plain", "Ünïcödé ß", "日本語 🦊", 'quo"tes\\ and\nlines\t', "\u2028 \x1f \x7f", "%s {x} $1", "")
_DOCUMENTS = ("{}", "null", '{"a":1e+22,"b":-0.0,"a\\u0000":[1,"\\u2028"]}', '[{"role":"user","text":"日本語"}]', "[]")


@contextlib.contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    """A connection that commits at the end."""
    engine = sa.create_engine(urls.engine_url(url))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def stored_bytes(connection: psycopg.Connection[Any]) -> int:
    """The bytes of all tables on PostgreSQL with their indexes."""
    row = connection.execute(
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    ).fetchone()
    assert row is not None
    return int(row[0])


def digests(url: str, *, without: tuple[str, ...] = ("txid",)) -> dict[str, str]:
    """For each table the number of its rows and a sum of their digests, whatever their order."""
    found = {}
    with connected(url) as connection:
        for table in TABLES:
            columns = [column for column in table.c if column.name not in without]
            total = count = 0
            with connection.execution_options(stream_results=True).execute(sa.select(*columns)) as rows:
                for row in rows:
                    text = "\x00".join(map(_plain, row)).encode()
                    total += int.from_bytes(hashlib.blake2b(text, digest_size=16).digest())
                    count += 1
            found[table.name] = f"{count} rows: {total % 2**128:032x}"
    return found


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return f"{type(value).__name__}:{value}"


def populate(url: str, sessions: int, messages: int, *, tenants: int = 3, seed: int = 7) -> None:
    """Fill an empty database: sessions in every state with so many messages each, and rows of all other tables."""
    dice = random.Random(seed)
    buffer: dict[sa.Table, list[dict[str, Any]]] = {table: [] for table in TABLES}
    with connected(url) as connection:

        def send() -> None:
            for table, rows in buffer.items():
                if rows:
                    connection.execute(sa.insert(table), rows)
                    rows.clear()

        number = 0
        for index in range(sessions):
            number = _add_session(
                buffer, index, messages, f"t{index % tenants}" if index % tenants else "", number, dice
            )
            if index % 200 == 199:
                send()
        number += 1
        buffer[t.transitions].append(
            _line(number, {"tenant": "t1", "session_id": "gone"}, 9, "delete", "completed", None, dice)
        )
        send()
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT setval('session_transitions_id_seq', :n)"), {"n": number})


def _add_session(
    buffer: dict[sa.Table, list[dict[str, Any]]],
    index: int,
    messages: int,
    tenant: str,
    number: int,
    dice: random.Random,
) -> int:
    state = _STATES[index % 5]
    key = {"tenant": tenant, "session_id": f"s-{index:07}" if index % 11 else f"日{index:07} "}
    at = START + timedelta(seconds=index, microseconds=dice.randrange(10**6))
    ended = at if state in _STATES[2:] else None
    buffer[t.sessions].append(
        {
            **key,
            **dict.fromkeys(c.name for c in t.sessions.c if c.nullable and c.name not in key),
            "kind": ("chat", "cron", "copilot")[index % 3],
            "user_id": f"user-{index % 50}" if index % 4 else None,
            "title": _TEXTS[index % 7],
            "title_folded": _TEXTS[index % 7].casefold(),
            "state": state,
            "metadata": "{}" if index % 5 else '{"a":1e+22,"b":-0.0}',
            "config": "{}",
            "version": 1 + index % 4,
            "step": None if index % 3 else index,
            "next_seq": messages + 10,
            "message_count": messages,
            "last_message_at": at if messages else None,
            "protected": index % 13 == 0,
            "created_at": at,
            "updated_at": at,
            "listed_at": at.replace(second=0, microsecond=0),
            "last_active_at": at,
            "idle_active": 86_400,
            "idle_override": index % 2 == 0,
            "expires_at": None if ended else at + timedelta(days=900),
            "ended_at": ended,
            "prune_at": ended and ended + timedelta(days=900),
            "deleted_at": at if index % 17 == 0 else None,
            "lease_epoch": index % 3,
            "attempts": 0,
            "rescues": 0,
            "runs": index % 6 == 0,
            "pending_approvals": index % 2,
            "saved_at": at if index % 10 else None,
            "next_entry": 3 if index % 10 else 1,
            "entries_from": 2 if index % 10 and index % 3 else None,
            "entries_before": "[[1,1]]" if index % 6 == 1 else None,
            "checkpoint_version": index % 2,
            "checkpoint_entry": 2,
        }
    )
    if index % 10:
        document = _DOCUMENTS[index % 5]
        pieces = ('["","cA",""]', None)[index % 2]
        buffer[t.session_states].append(
            {
                **key,
                "context": None if pieces else document,
                "context_pieces": pieces,
                "plan": None,
                "plan_pieces": None,
            }
        )
        buffer[t.values].append({**key, "name": "cA", "version": 1, "content": document})
        for place in (1, 2):
            entry = _DOCUMENTS[(index + place) % 5]
            buffer[t.entries].append({**key, "number": place, "digest": f"digest {place}", "content": entry})
    for seq in range(1, 3 if index % 4 == 0 else 1):
        buffer[t.checkpoints].append(
            {
                **key, "seq": seq, "label": f"label {seq}", "data": None, "next_entry": seq, "entries_from": 1,
                "entries_before": None, "context": "{}", "context_pieces": None, "plan": None, "plan_pieces": None,
                "phase": None, "step": seq, "version": seq, "created_at": at,
            }
        )  # fmt: skip
    for seq in range(2, messages + 2):
        text = _TEXTS[(index + seq) % 7] + " and some more words to be of the length that messages have" * 2
        buffer[t.messages].append(
            {
                **key, "seq": seq, "message_id": f"m{seq}", "role": "user", "content": text, "encoding": "text",
                "content_folded": None if text.isascii() else text.casefold(), "agent_id": None, "metadata": None,
                "created_at": at + timedelta(seconds=seq),
            }
        )  # fmt: skip
    if index % 8 == 0:
        buffer[t.approvals].append(
            {
                **key, "approval_id": "a", "action": "go?", "details": '{"x":1}', "state": "pending",
                "requested_by": None, "requested_at": at, "expires_at": None, "resolved_by": None, "resolved_at": None,
                "note": None, "suspended": True,
            }
        )  # fmt: skip
        opened = {"client": "{}", "opened_at": at, "beat_at": at, "silent_at": at}
        buffer[t.connections].append({**key, "connection_id": "c", **opened})
        buffer[t.tokens].append({**key, "token": "k", "digest": "d", "version": 1, "created_at": at})
        # Longer than a line of base 64 as some write it, and of any length beside threes.
        content = base64.b64encode(hashlib.shake_128(str(index).encode()).digest(90 + index % 5)).decode()
        buffer[t.graph_checkpoints] += [
            {
                **key,
                "place": "1f0",
                "run_id": "run",
                "first_item": 2,
                "needs": "[[2,2]]",
                "body": content,
                "writes": "a b\n",
                "new_items": "2 v c\n",
                "last_item": 2,
            },
            {**dict.fromkeys(column.name for column in t.graph_checkpoints.c), **key, "place": "1f1"},
        ]
        buffer[t.graph_values].append({**key, "name": "v", "needs": None, "content": content})
    number += 1
    buffer[t.transitions].append(_line(number, key, 1, "create", None, "active", dice))
    if state != "active":
        number += 1
        trigger = {"suspended": "suspend", "completed": "complete", "ended": "end", "expired": "expire"}[state]
        buffer[t.transitions].append(_line(number, key, messages + 5, trigger, "active", state, dice))
    return number


def _line(
    number: int, key: dict[str, Any], seq: int, trigger: str, before: str | None, after: str | None, dice: random.Random
) -> dict[str, Any]:
    return {
        "id": number, **key, "seq": seq, "trigger_name": trigger, "from_state": before, "to_state": after,
        "reason": None, "actor": "tester", "version": 1, "txid": None,
        "created_at": START + timedelta(microseconds=dice.randrange(10**12)),
    }  # fmt: skip
