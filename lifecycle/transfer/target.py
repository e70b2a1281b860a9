"""Writing rows into a database, in the transaction of a connection, each database in its own fastest way."""

import base64
import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, Final

import sqlalchemy as sa

from lifecycle.models import tables as t
from lifecycle.models.types import Base64
from lifecycle.recipes import large
from lifecycle.recipes.portable.base import Recipe, bound, insert, of_key, p
from lifecycle.recipes.portable.sessions import DROPS
from lifecycle.recipes.statement import Statement
from lifecycle.transfer.connections import Connection, postgres_types
from lifecycle.transfer.rows import Key, Row, columns

_LOG: Final = t.transitions.name
_ID: Final = "id"
_S: Final = t.sessions.c
# What is longer in characters may be too long for one statement of MariaDB's smallest packets.
_SHORT: Final = 64 * 1024

_SOME: Final = 64
# Of fewer sessions than ten times as many, the planner need not know.
_FEW: Final = 30


def _of_some(table: sa.Table, *chosen: Any) -> Any:
    ids: list[Any] = [p(f"id_{i}", table.c.session_id.type) for i in range(_SOME)]
    mine = sa.select(table.c.tenant, table.c.session_id, *chosen)
    return mine.where(table.c.tenant == p("tenant"), table.c.session_id.in_(ids))


_SEE: Final = Statement(_of_some(t.sessions, _S.lease_epoch))
# In the order in which every call locks them.
_LOCK: Final = Statement(_of_some(t.sessions, _S.lease_epoch).order_by(_S.tenant, _S.session_id).with_for_update())
# Where they are on several nodes: each by itself, in the same order.
_LOCK_ONE: Final = Statement(
    sa.select(_S.tenant, _S.session_id, _S.lease_epoch).where(of_key(t.sessions)).with_for_update()
)
_TOMBSTONES: Final = Statement(
    _of_some(t.transitions, t.transitions.c.seq, t.transitions.c.created_at).where(t.transitions.c.to_state.is_(None))
)


class Target:
    """Where rows go. `last_transition` is the highest id that the lines of the audit log have, if that is known.

    The audit log keeps its ids where the database never had a line of its own. Else the lines get new ones, behind all
    that were given, in the order in which they come: on SQLite a watch goes by them.
    """

    def __init__(self, connection: Connection, last_transition: int | None) -> None:
        self._connection = connection
        self._largest = 0
        if connection.kind == "mysql":
            (self._largest,) = connection.plain("SELECT @@max_allowed_packet")
        self._txid: int | None = None
        self._sessions = self._known = 0
        if connection.kind == "postgresql":
            (self._txid, known) = connection.plain(
                "SELECT pg_current_xact_id()::text::bigint, reltuples::bigint FROM pg_class WHERE oid = %s::regclass",
                (t.sessions.name,),
            )
            self._known = max(known, _FEW)
        self.keeps_ids = last_transition is not None and self._claim_ids(last_transition)

    def remove(self, keys: Sequence[Key]) -> None:
        """Remove sessions with all they own, their lines of the audit log included."""
        values = [{"p_tenant": tenant, "p_session_id": session_id} for tenant, session_id in keys]
        for statement in DROPS:
            self._connection.many(statement, values)

    def insert(self, table: sa.Table, rows: Sequence[Row]) -> None:
        """Insert rows of a table."""
        if not rows:
            return
        names = [column.name for column in columns(table)]
        if table.name == _LOG and not self.keeps_ids:
            names.remove(_ID)
        if self._connection.kind == "postgresql":
            self._copy(table, names, rows)
            if table is t.sessions and not self._connection.spread:
                self._count(len(rows))
            return
        statement = insert(table, tuple(names))
        values = [bound({name: row[name] for name in names}) for row in rows]
        if self._connection.kind == "mysql" and any(_may_be_large(row.values()) for row in rows):
            for each in values:
                self._in_pieces(statement, each)
        else:
            self._connection.many(statement, values)

    def _copy(self, table: sa.Table, names: list[str], rows: Sequence[Row]) -> None:
        more = {"txid": self._txid} if table.name == _LOG else {}
        columns = [*names, *more]
        quoted = ", ".join(f'"{name}"' for name in columns)
        values = itemgetter(*columns)
        bytes_of = [name for name in names if isinstance(table.c[name].type, Base64)]
        with (
            contextlib.closing(self._connection.raw.cursor()) as cursor,
            cursor.copy(f'COPY "{table.name}" ({quoted}) FROM STDIN (FORMAT BINARY)') as copy,
        ):
            copy.set_types(postgres_types((table.c[name] for name in columns), stored=True))
            for row in rows:
                if bytes_of:
                    row |= {name: base64.b64decode(row[name]) for name in bytes_of if row[name] is not None}
                copy.write_row(values(row | more if more else row))

    def _count(self, more: int) -> None:
        """Have the planner know of sessions while they are few: to find one, it would read all of its tenant's else."""
        self._sessions += more
        if self._sessions >= self._known * 10:
            self._connection.plain(f'ANALYZE "{t.sessions.name}"')
            self._known = self._sessions

    def _in_pieces(self, statement: Statement, values: Row) -> None:
        steps = large.split(_one(statement, values), lambda: self._largest)
        answer: Any = None
        try:
            while True:
                answer = self._connection.change(*steps.send(answer))
        except StopIteration:
            return

    def _claim_ids(self, last: int) -> bool:
        """Whether the lines' own ids are free; on PostgreSQL nobody gets one of them from here on."""
        plain = self._connection.plain
        match self._connection.kind:
            case "sqlite":
                found = plain("SELECT seq FROM sqlite_sequence WHERE name = ?", (_LOG,))
                return not found or found[0] == 0
            case "mysql":
                return plain(f"SELECT 1 FROM {_LOG} LIMIT 1") is None
        (sequence,) = plain("SELECT pg_get_serial_sequence(%s, %s)", (_LOG, _ID))
        used, called = plain(f"SELECT last_value, is_called FROM {sequence}")
        if called and used > last:
            return False
        if last:
            # At once and for good: who writes meanwhile gets ids behind them, and so does he if this is rolled back.
            plain("SELECT setval(%s, %s)", (sequence, last))
        return plain(f"SELECT 1 FROM {_LOG} LIMIT 1") is None


def present(connection: Connection, keys: Sequence[Key], *, locking: bool = False) -> dict[Key, int]:
    """Which of these sessions are there, with the epochs of their leases."""
    if locking and connection.spread:
        found: Iterable[Row] = itertools.chain.from_iterable(
            connection.all(_LOCK_ONE, {"p_tenant": tenant, "p_session_id": session_id})
            for tenant, session_id in sorted(set(keys))
        )
    else:
        found = _read_of(connection, _LOCK if locking else _SEE, keys)
    return {(row["tenant"], row["session_id"]): row["lease_epoch"] for row in found}


def tombstones(connection: Connection, keys: Sequence[Key]) -> set[tuple[Any, ...]]:
    """What the audit log holds on the removal of these sessions: keys with the line's number and time."""
    found = _read_of(connection, _TOMBSTONES, keys)
    return {(row["tenant"], row["session_id"], row["seq"], row["created_at"]) for row in found}


def _read_of(connection: Connection, statement: Statement, keys: Sequence[Key]) -> Iterator[Row]:
    for tenant, group in itertools.groupby(sorted(set(keys)), itemgetter(0)):
        ids = [session_id for _, session_id in group]
        for start in range(0, len(ids), _SOME):
            some = ids[start : start + _SOME]
            some += some[-1:] * (_SOME - len(some))
            values = {"p_tenant": tenant} | {f"p_id_{i}": session_id for i, session_id in enumerate(some)}
            yield from connection.all(statement, values)


def _one(statement: Statement, values: Row) -> Recipe:
    yield statement, values


def _may_be_large(values: Iterable[Any]) -> bool:
    return any(isinstance(value, str) and len(value) > _SHORT for value in values)
