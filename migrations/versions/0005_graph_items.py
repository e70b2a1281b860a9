"""The items of graphs' lists as lines in the rows of checkpoints, and shorter places, as each costs an index twice.

Revision ID: 0005
Revises: 0004
"""

import base64
import json
import re
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from alembic import context, op

from lifecycle.models.types import Base64, key_text, long_text

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ITEMS = "session_graph_items"
# What is moved is called so meanwhile: a process of the other release, which knows it by its name, stores nothing into it.
_MOVED = "moved_graph_items"
_CHECKPOINTS = "session_graph_checkpoints"
_COLUMN = "new_items"
_LAST = "last_item"
# Items whose checkpoint is not known stand in rows of their own, at places that begin with this; so much in each.
_MORE = "\x1d"
_MOST_CHARS = 256 * 1024
_PAGE = 1000
_PAGE_OF_TEXTS = 20
# An id that is a UUID, as its text and as it stands in a place: its first digits, and the rest in a base 64 that sorts.
_BETWEEN = "\x1f"
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHORTENED = re.compile(r"[0-9a-f]{8}[-0-9A-Z_a-z]{16}")
_AS_IT_IS = "!"
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_SORTING = bytes(sorted(b"-_" + _BASE64[:-2]))
_OPTIONS = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_nopad_bin"))
}
_KEY = ("tenant", "session_id")
_items, _moved = (
    sa.table(name, *map(sa.column, (*_KEY, "number", "needs")), sa.column("content", Base64()))
    for name in (_ITEMS, _MOVED)
)
_checkpoints = sa.table(_CHECKPOINTS, *map(sa.column, (*_KEY, "place", "body", "writes", _COLUMN, _MOVED, _LAST)))
# Stands among what is to be moved, until the very transaction in which it is: no session has this key.
_NOBODY = {"tenant": "", "session_id": ""}


def upgrade() -> None:
    """Add the columns, move the items into them, and drop their table."""
    if context.is_offline_mode():
        _refuse_items()
    elif _has_table(_ITEMS):
        _mark(op.get_bind(), _items, number=0, content="")
        op.rename_table(_ITEMS, _MOVED)
    for column in (sa.Column(_COLUMN, long_text(), nullable=True), sa.Column(_LAST, sa.BigInteger(), nullable=True)):
        if not (_repeatable() and _has_column(column.name)):
            op.add_column(_CHECKPOINTS, column)
    if context.is_offline_mode():
        op.drop_table(_ITEMS)
    elif _has_table(_MOVED):
        if _unmark(op.get_bind(), _moved):
            _replace(op.get_bind(), _shorter)
            _move_into_rows(op.get_bind())
        op.drop_table(_MOVED)


def downgrade() -> None:
    """Create the table, move the items into it, and drop the columns."""
    op.create_table(
        _ITEMS,
        sa.Column("tenant", key_text(), nullable=False),
        sa.Column("session_id", key_text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("needs", long_text(), nullable=True),
        sa.Column("content", Base64(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "session_id", "number", name=op.f("pk_session_graph_items")),
        if_not_exists=_repeatable(),
        postgresql_with={"toast_tuple_target": 2704},
        **_OPTIONS,
    )
    if context.is_offline_mode():
        op.drop_column(_CHECKPOINTS, _COLUMN)
        op.drop_column(_CHECKPOINTS, _LAST)
        return
    if _has_column(_COLUMN):
        _mark(op.get_bind(), _checkpoints, place="", **{_COLUMN: ""})
        op.execute(f"ALTER TABLE {_CHECKPOINTS} RENAME COLUMN {_COLUMN} TO {_MOVED}")
    if _has_column(_MOVED):
        if _unmark(op.get_bind(), _checkpoints):
            _move_into_table(op.get_bind())
            _replace(op.get_bind(), _longer)
        op.drop_column(_CHECKPOINTS, _MOVED)
    if _has_column(_LAST):
        op.drop_column(_CHECKPOINTS, _LAST)


def _repeatable() -> bool:
    # DDL commits by itself there, so an upgrade that was interrupted must be able to start again.
    return op.get_context().dialect.name in {"mysql", "mariadb"}


def _has_column(name: str) -> bool:
    if context.is_offline_mode():
        return False
    return name in {found["name"] for found in sa.inspect(op.get_bind()).get_columns(_CHECKPOINTS)}


def _has_table(name: str) -> bool:
    return sa.inspect(op.get_bind()).has_table(name)


def _refuse_items() -> None:
    """Make a printed script fail on a database with checkpoints: moving them needs more than SQL."""
    if op.get_context().dialect.name == "postgresql":
        op.execute(
            f"DO $$ BEGIN IF EXISTS (SELECT FROM {_CHECKPOINTS}) THEN RAISE EXCEPTION"
            " 'there are checkpoints of graphs: run lifecycle db upgrade instead of this script'; END IF; END $$"
        )


def _nobodys(table: Any) -> Any:
    return sa.and_(*(table.c[name] == value for name, value in _NOBODY.items()))


def _mark(connection: sa.Connection, table: Any, **values: Any) -> None:
    connection.execute(sa.delete(table).where(_nobodys(table)))
    connection.execute(sa.insert(table).values(**_NOBODY, **values))


def _unmark(connection: sa.Connection, table: Any) -> bool:
    """Whether the mark was there: what is moved from now on is moved with it, or not at all."""
    return connection.execute(sa.delete(table).where(_nobodys(table))).rowcount == 1


def _paged(
    connection: sa.Connection, table: Any, columns: tuple[str, ...], size: int, *conditions: Any
) -> Iterator[dict[str, Any]]:
    """Columns of a table's rows in the order of its key, whose columns are the first three of them."""
    order = [table.c[name] for name in columns[:3]]
    behind: list[Any] = []
    chosen = sa.select(*(table.c[name] for name in columns)).order_by(*order).limit(size)
    while True:
        rows = connection.execute(chosen.where(*conditions, *behind)).mappings().all()
        yield from map(dict, rows)
        if len(rows) < size:
            return
        last = [rows[-1][name] for name in columns[:3]]
        if _repeatable():
            # MariaDB finds its way in an index by this, and not by rows that are compared.
            tenants, sessions, within = (column > value for column, value in zip(order, last, strict=True))
            of_tenant, of_session = order[0] == last[0], order[1] == last[1]
            behind = [sa.or_(tenants, sa.and_(of_tenant, sessions), sa.and_(of_tenant, of_session, within))]
        else:
            behind = [sa.tuple_(*order) > sa.tuple_(*last)]


def _shorter(checkpoint_id: str) -> str:
    if _UUID.fullmatch(checkpoint_id):
        rest = base64.b64encode(bytes.fromhex(checkpoint_id[8:].replace("-", "")))
        return checkpoint_id[:8] + rest.translate(bytes.maketrans(_BASE64, _SORTING)).decode()
    return checkpoint_id + _AS_IT_IS if _SHORTENED.match(checkpoint_id) else checkpoint_id


def _longer(placed: str) -> str:
    if _SHORTENED.fullmatch(placed):
        rest = base64.b64decode(placed[8:].encode().translate(bytes.maketrans(_SORTING, _BASE64))).hex()
        return f"{placed[:8]}-{rest[:4]}-{rest[4:8]}-{rest[8:12]}-{rest[12:]}"
    return placed.removesuffix(_AS_IT_IS) if _SHORTENED.match(placed) else placed


def _replace(connection: sa.Connection, changed: Callable[[str], str]) -> None:
    """Give the ids in places another form."""
    change = (
        sa.update(_checkpoints)
        .where(
            _checkpoints.c.tenant == sa.bindparam("of_tenant"),
            _checkpoints.c.session_id == sa.bindparam("of_session"),
            _checkpoints.c.place == sa.bindparam("old"),
        )
        .values(place=sa.bindparam("new"))
    )
    rows = _paged(connection, _checkpoints, (*_KEY, "place"), _PAGE)
    for (tenant, session_id), own in groupby(rows, key=itemgetter(*_KEY)):
        # All of a session's are read before the first is changed, which may sort behind the others then.
        for place in [row["place"] for row in own]:
            namespace, between, name = place.rpartition(_BETWEEN)
            if between and changed(name) != name:
                keys = {"of_tenant": tenant, "of_session": session_id}
                connection.execute(change, keys | {"old": place, "new": namespace + between + changed(name)})


def _move_into_rows(connection: sa.Connection) -> None:
    """Store the items as lines of rows that hold nothing else, which go when no checkpoint needs their items."""
    row: dict[str, Any] = {}
    lines: list[str] = []
    size = 0

    def store() -> None:
        if lines:
            connection.execute(sa.insert(_checkpoints).values({**row, _COLUMN: "".join(lines)}))
        lines.clear()

    for item in _paged(connection, _moved, (*_KEY, "number", "needs", "content"), _PAGE):
        names = [] if item["needs"] is None else json.loads(item["needs"])
        line = f"{item['number']} {','.join(names)} {item['content']}\n"
        size += len(line)
        owner = {name: item[name] for name in _KEY}
        if not lines or size > _MOST_CHARS or owner != {name: row[name] for name in _KEY}:
            store()
            row, size = {**owner, "place": f"{_MORE}{item['number']}-0"}, len(line)
        row[_LAST] = item["number"]
        lines.append(line)
    store()


def _move_into_table(connection: sa.Connection) -> None:
    """Store each line as a row, and remove the rows that hold lines only."""
    filled = _checkpoints.c[_MOVED].is_not(None)
    for row in _paged(connection, _checkpoints, (*_KEY, "place", _MOVED), _PAGE_OF_TEXTS, filled):
        found = []
        for line in row[_MOVED].split("\n")[:-1]:
            number, names, content = line.split(" ")
            needs = json.dumps(names.split(","), separators=(",", ":")) if names else None
            own = {name: row[name] for name in _KEY}
            found.append({**own, "number": int(number), "needs": needs, "content": content})
        connection.execute(sa.insert(_items), found)
    connection.execute(sa.delete(_checkpoints).where(_checkpoints.c.body.is_(None), _checkpoints.c.writes.is_(None)))
